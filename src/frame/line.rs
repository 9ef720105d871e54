//! Lines and delimiters: where the next one ends. A search goes on where the last one stopped.

use memchr::memchr;
use memchr::memmem;

/// A line found at the front of the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Line {
    /// Bytes of the line without its newline.
    pub content: usize,
    /// Bytes of the line with its newline.
    pub whole: usize,
}

/// The first line of `input`. `searched` says how many bytes are known to hold no LF, and is moved on.
/// Only a CR directly before the LF belongs to the newline.
pub fn find_line(input: &[u8], searched: &mut usize) -> Option<Line> {
    let from = (*searched).min(input.len());
    match memchr(b'\n', &input[from..]) {
        Some(at) => {
            let end = from + at;
            let content = if end > 0 && input[end - 1] == b'\r' { end - 1 } else { end };
            Some(Line { content, whole: end + 1 })
        }
        None => {
            *searched = input.len();
            None
        }
    }
}

/// Where `delimiter` begins. `searched` says how many starting positions are known to be wrong.
pub fn find_delimiter(input: &[u8], delimiter: &[u8], searched: &mut usize) -> Option<usize> {
    let from = (*searched).min(input.len());
    match memmem::find(&input[from..], delimiter) {
        Some(at) => Some(from + at),
        None => {
            // The last bytes may be the first ones of a delimiter that has not arrived whole.
            *searched = from.max((input.len() + 1).saturating_sub(delimiter.len()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cr_directly_before_the_lf_is_part_of_the_newline() {
        let line = |input| find_line(input, &mut 0).map(|line| (line.content, line.whole));
        assert_eq!(line(b"a\r\nb"), Some((1, 3)));
        assert_eq!(line(b"a\nb"), Some((1, 2)));
        assert_eq!(line(b"a\r\r\n"), Some((2, 4)));
        assert_eq!(line(b"a\rb\n"), Some((3, 4)));
        assert_eq!(line(b"\n"), Some((0, 1)));
        assert_eq!(line(b"a\r"), None);
    }

    #[test]
    fn a_search_goes_on_where_it_stopped() {
        let mut searched = 0;
        assert_eq!(find_line(b"abc", &mut searched), None);
        assert_eq!(searched, 3);
        assert_eq!(find_line(b"abc\r\n", &mut searched), Some(Line { content: 3, whole: 5 }));
    }

    #[test]
    fn a_delimiter_that_arrives_in_pieces_is_found() {
        let input = b"xx--boundary";
        for cut in 0..input.len() {
            let mut searched = 0;
            assert_eq!(find_delimiter(&input[..cut], b"--boundary", &mut searched), None);
            assert_eq!(find_delimiter(input, b"--boundary", &mut searched), Some(2), "cut at {cut}");
        }
    }
}
