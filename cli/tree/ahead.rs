//! Looks ahead: which of the remembered packages a command will come to, and of which what is remembered holds.
//!
//! Several threads look, because a disk that has to be asked answers many questions in the time of one. Which packages a recipe
//! names is guessed from its bytes: one too few is looked at later, one too many for nothing.

use std::collections::HashMap;
use std::thread;

use base::PackageName;

use super::belief::still_holds;
use super::memory::{Entry, Memory};
use super::survey::Surveyor;

/// Threads that look at files at the same time; disks take more, but gain little by it.
const THREADS: usize = 8;
/// Packages for which a thread is not worth its while.
const PACKAGES_PER_THREAD: usize = 64;

/// Of each remembered package by its position, whether what is remembered holds; `None` for those that nobody seems to need.
pub fn look_ahead(
    memory: &Memory,
    surveyor: &Surveyor,
    roots: &[PackageName],
) -> Vec<Option<bool>> {
    let needed = needed(memory, roots);
    let each = needed.len().div_ceil(THREADS).max(PACKAGES_PER_THREAD);
    let look = |positions: &[usize]| -> Vec<(usize, bool)> {
        let holds = |position: &usize| {
            let entry = memory.entry(*position);
            (
                *position,
                entry.is_some_and(|entry| holds(&entry, surveyor)),
            )
        };
        positions.iter().map(holds).collect()
    };
    let mut found = vec![None; memory.len()];
    thread::scope(|scope| {
        let chunks = needed.chunks(each);
        let looks: Vec<_> = chunks.map(|chunk| scope.spawn(|| look(chunk))).collect();
        for look in looks {
            // What a thread that panicked was to look at is looked at later.
            for (position, holds) in look.join().unwrap_or_default() {
                found[position] = Some(holds);
            }
        }
    });
    found
}

/// Whether everything that a package was read from is as it was.
pub fn holds(entry: &Entry<'_>, surveyor: &Surveyor) -> bool {
    still_holds(entry.survey(), |path| surveyor.facts(entry.name(), path))
}

/// The roots and what is below them, by position and as far as it is remembered.
fn needed(memory: &Memory, roots: &[PackageName]) -> Vec<usize> {
    let positions: HashMap<&[u8], usize> = memory.names().zip(0..).collect();
    let mut seen = vec![false; memory.len()];
    let mut needed = Vec::new();
    let mut come_to = |name: &str, needed: &mut Vec<usize>| {
        if let Some(position) = positions.get(name.as_bytes())
            && !std::mem::replace(&mut seen[*position], true)
        {
            needed.push(*position);
        }
    };
    roots
        .iter()
        .for_each(|root| come_to(root.as_str(), &mut needed));
    let mut next = 0;
    while let Some(position) = needed.get(next) {
        let entry = memory.entry(*position);
        let named = entry.iter().flat_map(Entry::dependencies);
        named.for_each(|name| come_to(name, &mut needed));
        next += 1;
    }
    needed
}
