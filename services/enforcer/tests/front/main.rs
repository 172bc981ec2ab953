//! The front without a haproxy: what is written for it, how one state becomes the next, and whether the maps say what
//! the index says.

mod difference;
mod golden;
mod live;
mod maps;
mod rules;
mod scene;
