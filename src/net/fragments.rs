//! Slices cut into pieces that are worth a TLS record each: large ones stay where they are, small ones are gathered.

use std::io::IoSlice;

use crate::tls::session::MOST;
use crate::tls::session::RECORD;

pub struct Fragments<'a> {
    slices: &'a [IoSlice<'a>],
    /// How much of the first slice has gone.
    offset: usize,
    gathered: Vec<u8>,
}

impl<'a> Fragments<'a> {
    pub fn of(slices: &'a [IoSlice<'a>]) -> Self {
        Self { slices, offset: 0, gathered: Vec::new() }
    }

    pub fn next(&mut self) -> Option<&[u8]> {
        while self.slices.first().is_some_and(|slice| slice.len() == self.offset) {
            self.drop_first();
        }
        let rest = &self.slices.first()?[self.offset..];
        if rest.len() >= RECORD || self.slices.len() == 1 {
            let length = rest.len().min(MOST);
            self.offset += length;
            return Some(&rest[..length]);
        }
        self.gathered.clear();
        while let Some(slice) = self.slices.first()
            && self.gathered.len() < RECORD
        {
            let rest = &slice[self.offset..];
            let length = rest.len().min(RECORD - self.gathered.len());
            self.gathered.extend_from_slice(&rest[..length]);
            self.offset += length;
            if length == rest.len() {
                self.drop_first();
            }
        }
        Some(&self.gathered)
    }

    fn drop_first(&mut self) {
        self.slices = &self.slices[1..];
        self.offset = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(texts: &[usize]) -> Vec<usize> {
        let bytes: Vec<u8> = (0..texts.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
        let mut rest = &bytes[..];
        let mut slices = Vec::new();
        for length in texts {
            slices.push(IoSlice::new(&rest[..*length]));
            rest = &rest[*length..];
        }
        let (mut fragments, mut lengths, mut whole) = (Fragments::of(&slices), Vec::new(), Vec::new());
        while let Some(fragment) = fragments.next() {
            lengths.push(fragment.len());
            whole.extend_from_slice(fragment);
        }
        assert_eq!(whole, bytes);
        lengths
    }

    #[test]
    fn small_slices_share_a_record_and_large_ones_are_not_copied() {
        assert_eq!(lengths(&[]), [0_usize; 0]);
        assert_eq!(lengths(&[0, 4, 0, 10]), [14]);
        assert_eq!(lengths(&[4, RECORD]), [RECORD, 4]);
        assert_eq!(lengths(&[2 * MOST + 1]), [MOST, MOST, 1]);
        assert_eq!(lengths(&[10; 4000]), [RECORD, RECORD, 40_000 - 2 * RECORD]);
    }
}
