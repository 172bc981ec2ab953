//! The plan as files that people read: representative revisions, what they are compiled to, and what real nft says of
//! it. `CLAWGRESS_BLESS=1` writes the golden files anew; the difference is then read like code.

mod golden;
mod properties;
mod revisions;
mod rules;
mod walk;
