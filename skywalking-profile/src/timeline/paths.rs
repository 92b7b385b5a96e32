//! All stacks of a request as one tree, so that a stack is a number and common ancestors are near.

use std::collections::HashMap;
use std::iter;

use super::{SignatureId, Stack};

/// A path from the root frame down, which is a stack or an ancestor of stacks: a node of the tree
/// that the OAP shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct PathId(u32);

impl PathId {
    /// The root frame alone.
    pub(super) const ROOT: Self = Self(0);

    /// Its place in a list of all paths.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The paths of one request.
#[derive(Debug)]
pub(super) struct Paths {
    /// A parent stands before its children; the root is its own parent.
    entries: Vec<Entry>,
    children: HashMap<(PathId, SignatureId), PathId>,
    /// The paths along the latest interned stack, root first. The next one often begins alike.
    latest: Vec<PathId>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    parent: PathId,
    /// The last frame.
    signature: SignatureId,
    /// Frames above the last.
    depth: u32,
}

impl Paths {
    /// Only the root frame.
    pub(super) fn new(root: SignatureId) -> Self {
        Self {
            entries: vec![Entry { parent: PathId::ROOT, signature: root, depth: 0 }],
            children: HashMap::new(),
            latest: vec![PathId::ROOT],
        }
    }

    /// How many paths there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The path of a stack. One that does not begin with the root frame is put below it.
    pub(super) fn intern(&mut self, stack: &[SignatureId]) -> PathId {
        let frames = stack.strip_prefix(&[self.entries[0].signature]).unwrap_or(stack);
        let known = iter::zip(&self.latest[1..], frames)
            .take_while(|&(path, &signature)| self.entries[path.index()].signature == signature)
            .count();
        self.latest.truncate(1 + known);
        let mut path = self.latest[known];
        for &signature in &frames[known..] {
            path = self.child(path, signature);
            self.latest.push(path);
        }
        path
    }

    /// The path with one more frame.
    pub(super) fn child(&mut self, parent: PathId, signature: SignatureId) -> PathId {
        *self.children.entry((parent, signature)).or_insert_with(|| {
            let index = u32::try_from(self.entries.len()).expect("paths fit in memory");
            self.entries.push(Entry { parent, signature, depth: self.entries[parent.index()].depth + 1 });
            PathId(index)
        })
    }

    /// The longest path that both begin with.
    pub(super) fn common(&self, mut a: PathId, mut b: PathId) -> PathId {
        while a != b {
            if self.entries[a.index()].depth < self.entries[b.index()].depth {
                b = self.parent(b);
            } else {
                a = self.parent(a);
            }
        }
        a
    }

    /// Where the request is between a wait in `before` and one in `after`: in what they have in
    /// common. If that is one of the two, it is so without its last frame, whose own wait has
    /// ended or has not begun; the root frame stays.
    pub(super) fn between(&self, before: PathId, after: PathId) -> PathId {
        let (before, after) = (self.awaited(before), self.awaited(after));
        let common = self.common(before, after);
        if common == before || common == after { self.parent(common) } else { common }
    }

    /// `path` and its ancestors below `ancestor`, the longest first.
    pub(super) fn below(&self, ancestor: PathId, path: PathId) -> impl Iterator<Item = PathId> {
        iter::successors(Some(path), |&path| Some(self.parent(path))).take_while(move |&path| path != ancestor)
    }

    /// The frames of a path.
    pub(super) fn stack(&self, path: PathId) -> Stack {
        let mut frames: Vec<_> = self
            .below(PathId::ROOT, path)
            .chain([PathId::ROOT])
            .map(|path| self.entries[path.index()].signature)
            .collect();
        frames.reverse();
        frames.into()
    }

    /// What the request had awaited if it was scheduled then.
    fn awaited(&self, path: PathId) -> PathId {
        if self.entries[path.index()].signature == SignatureId::SCHEDULED { self.parent(path) } else { path }
    }

    fn parent(&self, path: PathId) -> PathId {
        self.entries[path.index()].parent
    }
}
