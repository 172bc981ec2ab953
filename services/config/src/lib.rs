//! The configuration model: one schema table, and everything that reads it.
//!
//! Text (curly or `set` lines) becomes a [`Tree`]; the tree is validated against [`schema::TABLE`] with
//! every error collected; a tree without errors becomes a typed [`Document`]. All of it is pure: no file is
//! opened, no clock read, and no input, however broken, may panic or take more than bounded memory.

pub mod access;
mod candidate;
mod cidr;
mod compare;
mod cross;
mod document;
mod lex;
mod load;
mod management;
mod nearest;
mod parse;
pub mod policy;
mod print;
mod problem;
pub mod schema;
mod table;
mod tree;
mod validate;
mod value;
mod versions;

pub use candidate::{Candidate, words};
pub use cidr::{Cidr, Wrong};
pub use document::{Address, Clawgress, Document, Ethernet, Role, Route, Ssh, System};
pub use load::{Invalid, Loaded, load};
pub use parse::{MAX_BYTES, MAX_DEPTH, Parsed, parse};
pub use print::{curly, set_lines};
pub use problem::{Position, Problem};
pub use tree::{EditError, Node, Tree};
pub use validate::{Verdict, validate};
pub use versions::VERSION;
