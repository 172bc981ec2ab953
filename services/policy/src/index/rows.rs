//! What each scope says of a pattern: one row per pattern, and patterns of which all scopes say the same share theirs.
//!
//! A million names of one scope are one row; two hundred hosts with one list are one row of two hundred cells.

use std::collections::HashMap;

/// Number of a scope; 0 is the global one.
pub(super) type ScopeNumber = u16;

/// What one scope says of one pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Rule(u32);

impl Rule {
    /// Named by `allow`: its addresses may be reached as such.
    pub(super) const ALLOWED: Self = Self(1);
    /// Named by the list that is judged on the wire.
    pub(super) const ON_WIRE: Self = Self(2);
    const WINDOW: u32 = 2;
    /// So many windows can be told apart.
    pub(super) const MOST_WINDOWS: usize = (u32::MAX >> Self::WINDOW) as usize;

    /// A window of its own, by its number.
    pub(super) fn window(number: usize) -> Self {
        Self((number as u32 + 1) << Self::WINDOW)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn is(self, list: Self) -> bool {
        self.0 & list.0 != 0
    }

    pub(super) fn own_window(self) -> Option<usize> {
        (self.0 >> Self::WINDOW)
            .checked_sub(1)
            .map(|number| number as usize)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cell {
    scope: ScopeNumber,
    rule: Rule,
}

#[derive(Default)]
pub(super) struct Rows {
    cells: Vec<Cell>,
    /// Where each row's cells are; row 0 has none.
    ranges: Vec<(u32, u32)>,
}

/// Rules not yet in rows.
#[derive(Default)]
pub(super) struct Draft(Vec<(u32, Cell)>);

impl Draft {
    /// `pattern` is the pattern's number in `Names`. A scope gives a pattern at most one window.
    pub(super) fn add(&mut self, pattern: u32, scope: ScopeNumber, rule: Rule) {
        self.0.push((pattern, Cell { scope, rule }));
    }

    /// Tells `set` the row of each pattern that has rules.
    pub(super) fn into_rows(mut self, mut set: impl FnMut(u32, u32)) -> Rows {
        self.0
            .sort_unstable_by_key(|(pattern, cell)| (*pattern, cell.scope));
        let mut rows = Rows {
            cells: Vec::new(),
            ranges: vec![(0, 0)],
        };
        let mut known: HashMap<Vec<Cell>, u32> = HashMap::new();
        let mut row = Vec::new();
        for group in self.0.chunk_by(|a, b| a.0 == b.0) {
            row.clear();
            for cells in group.chunk_by(|a, b| a.1.scope == b.1.scope) {
                let Some((_, first)) = cells.first() else {
                    continue;
                };
                let rule = cells
                    .iter()
                    .fold(Rule::default(), |rule, (_, cell)| rule.and(cell.rule));
                row.push(Cell {
                    scope: first.scope,
                    rule,
                });
            }
            let Some((pattern, _)) = group.first() else {
                continue;
            };
            let number = known.get(&row).copied().unwrap_or_else(|| {
                let number = rows.ranges.len() as u32;
                let start = rows.cells.len() as u32;
                rows.cells.extend_from_slice(&row);
                rows.ranges.push((start, rows.cells.len() as u32));
                known.insert(row.clone(), number);
                number
            });
            set(*pattern, number);
        }
        rows.cells.shrink_to_fit();
        rows.ranges.shrink_to_fit();
        rows
    }
}

impl Rows {
    fn row(&self, row: u32) -> &[Cell] {
        self.ranges
            .get(row as usize)
            .and_then(|(start, end)| self.cells.get(*start as usize..*end as usize))
            .unwrap_or_default()
    }

    /// What a scope says of the patterns of this row.
    pub(super) fn rule(&self, row: u32, scope: ScopeNumber) -> Option<Rule> {
        let row = self.row(row);
        let at = row.binary_search_by_key(&scope, |cell| cell.scope).ok()?;
        row.get(at).map(|cell| cell.rule)
    }

    /// Whether any scope has the patterns of this row in one of its lists.
    pub(super) fn is_allowed_somewhere(&self, row: u32) -> bool {
        self.row(row)
            .iter()
            .any(|cell| cell.rule.is(Rule::ALLOWED.and(Rule::ON_WIRE)))
    }
}
