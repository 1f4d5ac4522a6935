//! The CRI log format: `TIME STREAM TAG CONTENT`, a line each.

/// A line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339, as written.
    pub time: &'a [u8],
    /// `stdout` or `stderr`.
    pub stream: &'a [u8],
    /// Continued by the next line of its stream.
    pub partial: bool,
    /// What was written, without the newline.
    pub content: &'a [u8],
}

/// Reads a line (without its newline); `None` if it is none of this format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let content = parts.next()?;
    let known = matches!(stream, b"stdout" | b"stderr") && !time.is_empty();
    known.then_some(Line { time, stream, partial: tag.split(|b| *b == b':').any(|t| t == b"P"), content })
}

impl Line<'_> {
    /// When it was written.
    pub fn at(&self) -> Option<jiff::Timestamp> {
        std::str::from_utf8(self.time).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = parse(b"2026-11-24T00:17:09.669794202Z stderr P a b").unwrap();
        assert_eq!((line.stream, line.partial, line.content), (&b"stderr"[..], true, &b"a b"[..]));
        assert!(line.at().is_some());
        assert_eq!(parse(b"2026-11-24T00:17:09Z stdout F ").unwrap().content, b"");
        for bad in [&b""[..], b"x", b"a stdout F", b"a stdin F x"] {
            assert_eq!(parse(bad), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = parse(&line).and_then(|l| l.at());
        }
    }
}
