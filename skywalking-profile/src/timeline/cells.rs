//! A request's time divided among paths: what is shown, and what lies between.

use super::paths::{PathId, Paths};
use super::stretches::Stretch;

/// A part of the window's time that belongs to one path. It begins where the one before it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell {
    /// Nanoseconds since the window's start.
    pub(super) to_ns: i64,
    /// Where the request was.
    pub(super) path: PathId,
    /// The cell gets snapshots of its own. Otherwise it is the time between two that do, and the
    /// nodes on its path just go on from the one to the other.
    pub(super) shown: bool,
}

/// The cells of a window from its start to its end; two that touch have different paths.
///
/// Shown are waits of at least `least_ns`, polls of at least half of that, and rows of shorter
/// stretches that last `least_ns` together, as what they have in common. The rest of the time
/// belongs to what is [between](Paths::between) its neighbours.
pub(super) fn cells(stretches: &[Stretch], end_ns: i64, least_ns: i64, paths: &Paths) -> Vec<Cell> {
    let mut division = Division { paths, least_ns, cells: Vec::new(), at_ns: 0, row: None };
    for stretch in stretches {
        division.add(stretch);
    }
    division.close_row();
    division.fill(end_ns, PathId::ROOT);
    division.cells
}

/// Cells in the making.
#[derive(Debug)]
struct Division<'a> {
    paths: &'a Paths,
    least_ns: i64,
    cells: Vec<Cell>,
    /// The end of the last cell.
    at_ns: i64,
    /// What comes after the last cell and is not shown yet.
    row: Option<Row>,
}

impl Division<'_> {
    fn add(&mut self, stretch: &Stretch) {
        let least_alone_ns = if stretch.running { self.least_ns / 2 } else { self.least_ns };
        if stretch.to_ns - stretch.from_ns >= least_alone_ns {
            self.close_row();
            self.show(stretch.from_ns, stretch.to_ns, stretch.path);
            return;
        }
        let joined = self.row.and_then(|row| row.join(stretch, self.least_ns, self.paths));
        if joined.is_none() {
            self.close_row();
        }
        self.row = joined.or(Some(Row::new(stretch)));
    }

    fn close_row(&mut self) {
        if let Some(row) = self.row.take()
            && row.lasts(self.least_ns)
        {
            self.show(row.from_ns, row.to_ns, row.path);
        }
    }

    fn show(&mut self, from_ns: i64, to_ns: i64, path: PathId) {
        self.fill(from_ns, path);
        self.push(to_ns, path, true);
    }

    /// Gives the time since the last cell to what is between its path and `next`.
    fn fill(&mut self, to_ns: i64, next: PathId) {
        if self.at_ns < to_ns {
            let last = self.cells.last().map_or(PathId::ROOT, |cell| cell.path);
            self.push(to_ns, self.paths.between(last, next), false);
        }
    }

    fn push(&mut self, to_ns: i64, path: PathId, shown: bool) {
        self.at_ns = to_ns;
        match self.cells.last_mut() {
            Some(last) if last.path == path => {
                last.to_ns = to_ns;
                last.shown |= shown;
            }
            _ => self.cells.push(Cell { to_ns, path, shown }),
        }
    }
}

/// Successive stretches that are too short to be shown alone.
#[derive(Clone, Copy, Debug)]
struct Row {
    from_ns: i64,
    to_ns: i64,
    /// What they have in common.
    path: PathId,
    /// The path of the last one.
    latest: PathId,
}

impl Row {
    fn new(stretch: &Stretch) -> Self {
        Self { from_ns: stretch.from_ns, to_ns: stretch.to_ns, path: stretch.path, latest: stretch.path }
    }

    fn lasts(&self, least_ns: i64) -> bool {
        self.to_ns - self.from_ns >= least_ns
    }

    /// The row with one more stretch; `None` if it would lose frames by that and lasts without.
    fn join(&self, stretch: &Stretch, least_ns: i64, paths: &Paths) -> Option<Self> {
        let shared = if self.to_ns == stretch.from_ns {
            paths.common(self.latest, stretch.path)
        } else {
            paths.between(self.latest, stretch.path)
        };
        let path = paths.common(self.path, shared);
        (path == self.path || !self.lasts(least_ns)).then_some(Self {
            to_ns: stretch.to_ns,
            path,
            latest: stretch.path,
            ..*self
        })
    }
}
