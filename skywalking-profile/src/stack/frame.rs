//! A symbolized stack frame.

use std::path::Path;

use super::name::Name;

/// Stands for the frames that an unwind did not reach, in place of a code address.
pub(crate) const CUT: u64 = 0;

/// More frames than this are recursion; its root side is cut.
pub(crate) const DEEPEST: usize = 500;

/// The name of the frame at [`CUT`].
pub(crate) const CUT_OFF: &str = "[…]";

/// The name of a frame without one.
pub(crate) const UNKNOWN: &str = "[unknown]";

/// One function on a stack, inlined ones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) name: Name,
    /// As it is mangled: one for each instance of a generic function.
    pub(crate) symbol: Box<str>,
    /// Where in this function the next frame was called or awaited; known where debug information covers it.
    pub(crate) source: Option<Source>,
    /// Whether the compiler put it into the function of the frame before it.
    pub(crate) inlined: bool,
    /// Whether it is of a shared library, or of the executable if this crate is in a library.
    pub(crate) foreign: bool,
}

impl Frame {
    pub(crate) fn new(symbol: &str, source: Option<Source>) -> Self {
        Self { name: Name::of_symbol(symbol), symbol: symbol.into(), source, inlined: false, foreign: false }
    }

    /// Of a function that is known without any place in it; `file` is where it is defined.
    #[cfg(any(feature = "async-backtrace", feature = "tracing-spans"))]
    pub(crate) fn annotated(name: Name, file: Option<&str>) -> Self {
        let source = file.map(|file| Source { line: None, ..Source::new(Path::new(""), file, 0, None) });
        Self { symbol: name.path().into(), name, source, inlined: false, foreign: false }
    }
}

/// A place in a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file's name without its folders.
    pub(crate) file: Box<str>,
    /// `None` if only the file is known.
    pub(crate) line: Option<u32>,
    /// From 1, where it is known.
    pub(crate) column: Option<u16>,
    /// Whether the file is a dependency's or the standard library's rather than the application's.
    pub(crate) library: bool,
}

impl Source {
    /// `file` may have folders of its own, below `folder`.
    pub(crate) fn new(folder: &Path, file: &str, line: u32, column: Option<u16>) -> Self {
        let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
        Self { file: name.into(), line: Some(line), column, library: is_library(&folder.join(file)) }
    }
}

/// Whether `path` is of a dependency or the standard library. Cargo unpacks dependencies into `registry/src` and
/// `git/checkouts` of its home folder, and the distributed standard library's sources are remapped to
/// `/rustc/<commit>/library`, or lie in `rustlib/src` where that component is installed; those of its own dependencies,
/// such as `HashMap`'s hashbrown, to `/rust/deps`.
fn is_library(path: &Path) -> bool {
    let path = path.to_string_lossy().replace('\\', "/");
    ["/registry/src/", "/git/checkouts/", "/rustc/", "/rustlib/src/", "/rust/deps/"]
        .iter()
        .any(|mark| path.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_and_the_standard_library_are_told_by_their_folders() {
        for folder in [
            "/home/me/.cargo/registry/src/index.example-1949cf8c6b5b557f/tokio-1.54.1/src/time",
            "/home/me/.cargo/git/checkouts/axum-1/abc/axum/src",
            "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/future",
            "/rust/deps/hashbrown-0.16.1/src/raw",
        ] {
            assert!(Source::new(Path::new(folder), "sleep.rs", 1, None).library, "{folder}");
        }
        assert!(!Source::new(Path::new("/srv/shop/src"), "main.rs", 1, None).library);
        assert!(!Source::new(Path::new("src/registry"), "main.rs", 1, None).library);
    }
}
