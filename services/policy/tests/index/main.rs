//! What a revision means, held against the words of the design and against naive models.

mod domains;
mod file;
mod made;
mod model;
mod sources;
mod windows;
mod windows_model;
