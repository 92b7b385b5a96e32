//! Unwinds images, away from the thread that they were taken on.

use std::fmt;

use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};

use super::arch::{Cache, Framehop, MOST_PUSHED, Registers};
use super::code::{Calls, Code};
use super::image::Image;
use super::modules::{self, Table};
use crate::stack::frame::{CUT, DEEPEST};

/// Frame pointers tried, each with a walk. The right one is among the nearest to the leaf.
const MOST_TRIED: usize = 64;

/// The unwind tables of all loaded modules. Owned by one thread; made when first needed, some milliseconds' work.
pub(crate) struct Unwinder {
    framehop: Framehop<Vec<u8>>,
    cache: Cache,
    code: Code,
    generation: (u64, u64),
}

impl Unwinder {
    pub(crate) fn new() -> Self {
        let generation = modules::generation();
        let mut framehop = Framehop::new();
        let (mut code, mut functions) = (Vec::new(), Vec::new());
        for module in modules::loaded() {
            let section = |table: &Table| {
                Some(table.address - module.base..table.address - module.base + table.bytes.len() as u64)
            };
            framehop.add_module(Module::new(
                String::new(),
                module.range.clone(),
                module.base,
                ExplicitModuleSectionInfo {
                    base_svma: 0,
                    eh_frame_hdr_svma: section(&module.eh_frame_hdr),
                    eh_frame_svma: section(&module.eh_frame),
                    eh_frame_hdr: Some(module.eh_frame_hdr.bytes),
                    eh_frame: Some(module.eh_frame.bytes),
                    ..Default::default()
                },
            ));
            code.extend(module.code);
            functions.extend(module.functions);
        }
        Self { framehop, cache: Cache::new(), code: Code::new(code, functions), generation }
    }

    /// Reads the modules again if any was loaded or unloaded meanwhile.
    pub(crate) fn refresh(&mut self) {
        if self.generation != modules::generation() {
            *self = Self::new();
        }
    }

    /// The code addresses of the image's frames, root first, each within the instruction that was running or calling.
    /// Begins with [`CUT`] if the unwind did not arrive at the poll frame.
    pub(crate) fn unwind(&mut self, image: &Image) -> Vec<u64> {
        let start = image.registers();
        let mut walk = self.walk(image, start);
        if !walk.is_whole && start.fp.is_none() {
            walk = self.walk_by_found_frame_pointer(image, &walk).unwrap_or(walk);
        }
        let mut addresses = walk.addresses;
        if !walk.is_whole {
            addresses.push(CUT);
        }
        addresses.reverse();
        addresses
    }

    fn walk(&mut self, image: &Image, start: Registers) -> Walk {
        let mut registers = start.to_unwind(self.framehop.max_known_code_address());
        let mut read = |address: u64| image.word(address as usize).map(|word| word as u64).ok_or(());
        let mut frame = FrameAddress::from_instruction_pointer(start.pc as u64);
        let mut addresses = vec![frame.address_for_lookup()];
        let end = image.poll_frame() as u64;
        let mut sp = start.sp as u64;
        let is_whole = loop {
            if addresses.len() == DEEPEST {
                break false;
            }
            let next = match self.framehop.unwind_frame(frame, &mut registers, &mut self.cache, &mut read) {
                Ok(Some(address)) if self.code.is_returned_to(address) => FrameAddress::from_return_address(address),
                Ok(_) | Err(_) => None,
            };
            // What the polling function's own frame holds was not copied. If it pushed arguments, its callee's frame ends a
            // little below, and only the attempt tells that there is nothing above.
            let Some(next) = next else { break image.is_whole() && (..=MOST_PUSHED).contains(&(end - sp)) };
            frame = next;
            addresses.push(frame.address_for_lookup());
            sp = registers.sp();
            if sp >= end {
                break sp == end;
            }
        };
        Walk { addresses, sp, is_whole }
    }

    /// Goes on where `cut`, the walk of a stack whose frame pointer is not known, had need of it.
    ///
    /// The frame that needs it begins with the caller's frame pointer and the return address, which the frame pointer points
    /// to: each pair of words that may be that is tried. Calls that are over left such pairs, too, whose walks often end at
    /// the poll frame, like the right one's. Most lie within the frame itself, whose size is known; and where the others meet
    /// what is on the stack now, a call is of another function than the one below it.
    fn walk_by_found_frame_pointer(&mut self, image: &Image, cut: &Walk) -> Option<Walk> {
        /// A frame pointer is a multiple of this in both ABIs.
        const ALIGNMENT: u64 = 16;
        if !image.is_whole() {
            // Then none arrives.
            return None;
        }
        let callee = *cut.addresses.last()?;
        let start = cut.sp + self.code.frame_size(callee);
        let pairs = (start.next_multiple_of(ALIGNMENT)..image.poll_frame() as u64).step_by(ALIGNMENT as usize);
        let (mut best, mut tried): (Option<(Doubt, Walk)>, usize) = (None, 0);
        for fp in pairs {
            let Some(address) = image.word(fp as usize + size_of::<usize>()) else { break };
            let address = address as u64;
            let calls = if self.code.is_returned_to(address) { self.code.calls(address, callee) } else { Calls::No };
            if calls == Calls::No {
                continue;
            }
            tried += 1;
            if tried > MOST_TRIED {
                break;
            }
            let walk = self.walk(image, image.registers().with_frame_pointer(fp as usize));
            if !walk.is_whole || !walk.addresses.starts_with(&cut.addresses) {
                continue;
            }
            let doubt = match (calls, self.wrong_calls(&walk.addresses[cut.addresses.len()..])) {
                (Calls::Surely, 0) => return Some(walk),
                (_, 0) => Doubt::OfTheCall,
                // Functions that end in a call jump: it is their caller that seems to make it.
                (Calls::Surely, wrong) => Doubt::OfItsCallers(wrong),
                _ => continue,
            };
            if best.as_ref().is_none_or(|(least, _)| doubt < *least) {
                best = Some((doubt, walk));
            }
        }
        best.map(|(_, walk)| walk)
    }

    /// How many of these frames, each called by the next one, it calls another function.
    fn wrong_calls(&mut self, addresses: &[u64]) -> usize {
        // A frame's address lies within the call that it makes, right before what that returns to.
        addresses.windows(2).filter(|pair| self.code.calls(pair[1] + 1, pair[0]) == Calls::No).count()
    }
}

/// What speaks against a walk by a frame pointer that was found, from the least on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// Whether its caller calls the function that needed the frame pointer is not known.
    OfTheCall,
    /// So many of those above call another function.
    OfItsCallers(usize),
}

/// A way from a leaf towards the poll frame.
struct Walk {
    /// Leaf first.
    addresses: Vec<u64>,
    /// The stack pointer in the last frame.
    sp: u64,
    /// It arrived at the poll frame.
    is_whole: bool,
}

impl fmt::Debug for Unwinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unwinder").field("generation", &self.generation).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "captures an image")]

    use super::*;
    use crate::stack::PollFrame;

    #[inline(never)]
    fn leaf(frame: &PollFrame) -> Image {
        // SAFETY: `frame` is of `root`, which called this.
        std::hint::black_box(unsafe { Image::capture(frame) }.unwrap())
    }

    #[inline(never)]
    fn middle(frame: &PollFrame, depth: usize) -> Image {
        if depth > 0 { std::hint::black_box(middle(frame, depth - 1)) } else { std::hint::black_box(leaf(frame)) }
    }

    #[inline(never)]
    fn root(depth: usize) -> Image {
        let frame = PollFrame::here().unwrap();
        std::hint::black_box(middle(&frame, depth))
    }

    #[test]
    fn an_image_unwinds_whole_to_the_poll_frame() {
        let image = std::thread::spawn(|| root(10)).join().unwrap();
        let addresses = Unwinder::new().unwind(&image);
        assert_ne!(addresses[0], CUT);
        // root, 11 times middle, leaf, capture; an optimising compiler may merge some of them, but not the recursion.
        assert!((12..=14).contains(&addresses.len()), "{addresses:x?}");
        let recursion = addresses.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(recursion >= 8, "{addresses:x?}");
    }

    #[test]
    fn a_stack_too_long_to_copy_is_cut_at_the_root() {
        let addresses = Unwinder::new().unwind(&root(4_000));
        assert_eq!(addresses[0], CUT);
        assert!((100..=DEEPEST + 1).contains(&addresses.len()), "{}", addresses.len());
    }
}
