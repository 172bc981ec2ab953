//! What rules decide, held against the words of the design and against a naive evaluator.

mod cases;
mod inside;
mod made;
mod naive;
mod reach;
mod windows;
