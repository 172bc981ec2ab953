//! The engine between its neighbours: every promise about what is answered, asked and pinned, one test each.

mod failing;
mod front;
mod policy;
mod rules;
mod scene;
mod trail;
mod world;
