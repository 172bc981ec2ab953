//! What an operator is working on: a copy of the running configuration that is edited, shown and compared, and becomes
//! the running one only by a commit.
//!
//! An edit is refused at once when the table does not know it; what only the whole can tell, `verdict` says.

use crate::compare;
use crate::lex::{Lexer, Token};
use crate::print::{Pair, Printer, lines, word};
use crate::problem::Problem;
use crate::schema::{self, Place};
use crate::tree::{EditError, Tree};
use crate::validate::{Verdict, shape, validate};

#[derive(Debug, Clone, Default)]
pub struct Candidate {
    running: Tree,
    tree: Tree,
}

impl Candidate {
    pub fn new(running: Tree) -> Self {
        Self {
            tree: running.clone(),
            running,
        }
    }

    /// A candidate that was worked on before, such as one kept over a session.
    pub fn resume(running: Tree, tree: Tree) -> Self {
        Self { running, tree }
    }

    pub fn running(&self) -> &Tree {
        &self.running
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn is_changed(&self) -> bool {
        self.running != self.tree
    }

    /// Sets a path with its value. What the table does not know is refused and changes nothing.
    pub fn set(&mut self, path: &[&str]) -> Result<(), EditError> {
        let mut only = Tree::default();
        only.set(path)?;
        if let Some(problem) = shape(&only).into_iter().next() {
            return Err(EditError::Refused(problem));
        }
        if let Some(problem) = unfinished(path) {
            return Err(EditError::Refused(problem));
        }
        self.tree.set(path)
    }

    pub fn delete(&mut self, path: &[&str]) -> Result<(), EditError> {
        self.tree.delete(path)
    }

    /// Takes back every edit.
    pub fn discard(&mut self) {
        self.tree = self.running.clone();
    }

    /// After a commit: what was worked on runs now.
    pub fn committed(&mut self) {
        self.running = self.tree.clone();
    }

    pub fn verdict(&self) -> Verdict {
        validate(&self.tree)
    }

    /// The blocks at a path; each line is marked + when added, - when removed, > when its value was changed.
    pub fn show(&self, path: &[&str]) -> Result<String, EditError> {
        let pair = self.at(path)?;
        let mut printer = Printer {
            text: String::new(),
            marks: true,
        };
        printer.blocks(pair, schema::place(path), 0, path.is_empty());
        Ok(printer.text)
    }

    /// The same as `set` lines, without what was removed.
    pub fn show_commands(&self, path: &[&str]) -> Result<String, EditError> {
        let pair = self.at(path)?;
        let mut text = String::new();
        if let Some(node) = pair.new {
            let before = path
                .iter()
                .fold("set".to_owned(), |before, part| before + " " + &word(part));
            if node.is_leaf() && !path.is_empty() {
                text = format!("{before}\n");
            }
            lines(&mut text, node, schema::place(path), &before);
        }
        Ok(text)
    }

    /// What a commit would change: a section for each place, its lines with + and -. Empty if nothing.
    pub fn compare(&self) -> String {
        compare::sections(&self.running, &self.tree)
    }

    /// The `delete` and `set` lines that a commit stands for.
    pub fn compare_commands(&self) -> String {
        compare::commands(&self.running, &self.tree)
    }

    fn at(&self, path: &[&str]) -> Result<Pair<'_>, EditError> {
        let pair = Pair {
            old: self.running.get(path),
            new: self.tree.get(path),
        };
        if pair.old.is_none() && pair.new.is_none() {
            return Err(EditError::Missing {
                path: path.join(" "),
            });
        }
        Ok(pair)
    }
}

/// A group alone says nothing; a name alone does.
fn unfinished(path: &[&str]) -> Option<Problem> {
    let (last, before) = path.split_last()?;
    let Place::Inside(around) = schema::place(before) else {
        return None;
    };
    let is_group = around.words().any(|known| known == *last);
    let Place::Inside(level) = schema::place(path) else {
        return None;
    };
    let next: Vec<_> = level.words().collect();
    is_group.then(|| {
        Problem::new(
            path,
            None,
            "the path ends too early",
            format!("add what follows: {}", next.join(", ")),
        )
    })
}

/// The words of one line of a console, quotes removed.
pub fn words(line: &str) -> Result<Vec<String>, Problem> {
    let mut words = Vec::new();
    for (at, token) in Lexer::new(line) {
        match token {
            Token::Word { text, .. } => words.push(text),
            Token::End { newline: true } => {}
            Token::Bad { what, fix } => return Err(Problem::new(&[], Some(at), what, fix)),
            Token::Open | Token::Close | Token::End { newline: false } => {
                return Err(Problem::new(
                    &[],
                    Some(at),
                    "braces and semicolons are for files",
                    "write one command on a line, and a word that has them in quotes",
                ));
            }
        }
    }
    Ok(words)
}
