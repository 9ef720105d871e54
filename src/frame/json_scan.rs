//! Where the next JSON document of a stream ends.
//!
//! Only brackets and quotes are looked at; whether the text between them is JSON is the decoder's question.
//! The machine keeps its place, so that every byte is looked at once however the stream is cut.

use memchr::memchr2;

use self::State::*;

#[derive(Default)]
pub struct Scan {
    state: State,
    /// Where the document begins, once its first byte has been seen.
    start: usize,
    /// Bytes of the input already looked at.
    seen: usize,
}

#[derive(Clone, Copy, Default)]
enum State {
    /// White space before the document.
    #[default]
    Before,
    /// Inside `depth` brackets, outside strings.
    Nested { depth: usize },
    /// Inside a string, itself inside `depth` brackets.
    Quoted { depth: usize, escaped: bool },
    /// A number or a word: up to white space, a bracket, a comma or the end.
    Bare,
}

/// The extent of a document within the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    pub start: usize,
    pub end: usize,
}

impl Scan {
    /// Goes on scanning `input`, which begins where it began at the last call and may have grown.
    /// `ended` says that nothing will follow.
    pub fn advance(&mut self, input: &[u8], ended: bool) -> Option<Extent> {
        while self.seen < input.len() {
            let byte = input[self.seen];
            self.state = match self.state {
                Before if is_space(byte) => Before,
                Before => {
                    self.start = self.seen;
                    match byte {
                        b'[' | b'{' => Nested { depth: 1 },
                        b'"' => Quoted { depth: 0, escaped: false },
                        // These never begin a document: one byte of malformed input.
                        b']' | b'}' | b',' => return Some(self.extent(self.seen + 1)),
                        _ => Bare,
                    }
                }
                Nested { depth } => match byte {
                    b'[' | b'{' => Nested { depth: depth + 1 },
                    b']' | b'}' if depth == 1 => return Some(self.extent(self.seen + 1)),
                    b']' | b'}' => Nested { depth: depth - 1 },
                    b'"' => Quoted { depth, escaped: false },
                    _ => Nested { depth },
                },
                Quoted { depth, escaped: true } => Quoted { depth, escaped: false },
                Quoted { depth, escaped: false } => match memchr2(b'"', b'\\', &input[self.seen..]) {
                    None => {
                        self.seen = input.len();
                        return None;
                    }
                    Some(skipped) => {
                        self.seen += skipped;
                        match input[self.seen] {
                            b'\\' => Quoted { depth, escaped: true },
                            _ if depth == 0 => return Some(self.extent(self.seen + 1)),
                            _ => Nested { depth },
                        }
                    }
                },
                Bare if is_space(byte) || b"[]{},".contains(&byte) => return Some(self.extent(self.seen)),
                Bare => Bare,
            };
            self.seen += 1;
        }
        (ended && matches!(self.state, Bare)).then(|| self.extent(self.seen))
    }

    /// Only white space has been seen so far.
    pub fn is_blank(&self) -> bool {
        matches!(self.state, Before)
    }

    /// Bytes of the document seen so far.
    pub fn length(&self) -> usize {
        self.seen - self.start
    }

    fn extent(&self, end: usize) -> Extent {
        Extent { start: self.start, end }
    }
}

/// Bytes of the one newline that may follow a document and goes with it.
pub fn newline_after(input: &[u8]) -> usize {
    match input {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    }
}

/// White space of RFC 8259, section 2.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(input: &[u8], ended: bool) -> Option<&[u8]> {
        Scan::default().advance(input, ended).map(|extent| &input[extent.start..extent.end])
    }

    #[test]
    fn a_document_ends_at_its_closing_bracket_or_quote() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"{\"a\":[1,{}]}{", b"{\"a\":[1,{}]}"),
            (b" \r\n\t[1] tail", b"[1]"),
            (b"\"a\\\"]b\"x", b"\"a\\\"]b\""),
            (b"[\"]\\\\\"]x", b"[\"]\\\\\"]"),
            (b"12.5 3", b"12.5"),
            (b"true,", b"true"),
            (b"nul[", b"nul"),
            (b"]1", b"]"),
        ];
        for (input, document) in cases {
            assert_eq!(first(input, false), Some(document), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn a_bare_word_needs_the_end_or_something_after_it() {
        assert_eq!(first(b"42", false), None);
        assert_eq!(first(b"42", true), Some(&b"42"[..]));
        assert_eq!(first(b"[42", true), None);
        assert_eq!(first(b"  ", true), None);
    }

    #[test]
    fn the_way_a_stream_is_cut_changes_nothing() {
        let input = b"  {\"k\\\\\\\"\":[\"]\",{\"x\":\"\\u005d\"}],\"n\":-1.5e3}\n[]";
        let whole = Scan::default().advance(input, false);
        assert_eq!(whole, Some(Extent { start: 2, end: input.len() - 3 }));
        let mut scan = Scan::default();
        let step_by_step = (0..=input.len()).find_map(|cut| scan.advance(&input[..cut], false));
        assert_eq!(step_by_step, whole);
    }

    #[test]
    fn one_newline_goes_with_the_document() {
        assert_eq!(newline_after(b"\n\n"), 1);
        assert_eq!(newline_after(b"\r\nx"), 2);
        assert_eq!(newline_after(b"\rx"), 0);
        assert_eq!(newline_after(b""), 0);
    }
}
