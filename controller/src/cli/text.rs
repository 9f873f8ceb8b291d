//! Text for terminals and pipes: tables whose last column wraps, ages, colour. Pure.
//!
//! Invariants: text of an object becomes one line without control characters, so that it cannot
//! move the cursor of a terminal; a row of a table that is not on a terminal is exactly one
//! line, for `grep` and `awk`.

use jiff::Timestamp;

use crate::process::text::{one_line, shortened};

/// The space between columns, as in `kubectl`.
const GAP: usize = 3;
/// If the last column is narrower than this, its cell goes below the row.
const NARROW: usize = 24;
const INDENT: usize = 4;
/// Longer text is cut; the commands say where to find all of it.
const LINES: usize = 3;
/// The maximum length of a cell, in characters. A condition can have 32,768; `-o json` has all
/// of them.
pub const LONGEST: usize = 4_096;
/// The text of an empty cell.
pub const NOTHING: &str = "-";

/// Where the output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The width of the terminal; `None`: not a terminal, so text is neither wrapped nor cut.
    pub width: Option<usize>,
    /// Whether to use colour.
    pub colour: bool,
    /// Wrap, but never cut.
    pub whole: bool,
}

/// A state, shown as a colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// No colour.
    #[default]
    Plain,
    /// Working.
    Good,
    /// In progress.
    Waiting,
    /// Someone must act.
    Bad,
}

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// A table. The last column wraps on a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

// === impl Cell ===

impl Cell {
    /// Plain text; empty text becomes [`NOTHING`].
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = shortened(&one_line(text.as_ref()), LONGEST);
        Self {
            text: if text.is_empty() {
                NOTHING.to_owned()
            } else {
                text
            },
            tone: Tone::Plain,
        }
    }

    /// Text of a last column, which may be empty.
    pub fn remark(text: &str) -> Self {
        Self {
            text: shortened(&one_line(text), LONGEST),
            tone: Tone::Plain,
        }
    }

    /// The same cell in a colour.
    #[must_use]
    pub fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    fn width(&self) -> usize {
        width(&self.text)
    }
}

// === impl Table ===

impl Table {
    /// An empty table.
    pub fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many cells as the header has.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether there are rows.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The whole table; every line ends with a line break.
    pub fn render(&self, look: Look) -> String {
        let widths = self.widths();
        let fixed: usize = widths.iter().map(|width| width + GAP).sum();
        let mut out = String::new();
        let header: Vec<Cell> = self.header.iter().map(Cell::new).collect();
        for cells in std::iter::once(&header).chain(&self.rows) {
            let Some((last, fore)) = cells.split_last() else {
                continue;
            };
            let mut line = String::new();
            for (cell, width) in fore.iter().zip(&widths) {
                paint(&mut line, cell, look);
                line.extend(std::iter::repeat_n(' ', width + GAP - cell.width()));
            }
            place(&mut line, last, fixed, look);
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The widths of all columns but the last.
    fn widths(&self) -> Vec<usize> {
        let fore = self.header.len().saturating_sub(1);
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let titled = width(self.header[column]);
            cells.map(Cell::width).fold(titled, usize::max)
        };
        (0..fore).map(widest).collect()
    }
}

/// Places the last cell: after the others, wrapped, or below them.
fn place(line: &mut String, cell: &Cell, fixed: usize, look: Look) {
    let Some(total) = look.width.filter(|total| fixed + cell.width() > *total) else {
        paint(line, cell, look);
        return;
    };
    let room = total.saturating_sub(fixed);
    let (indent, room) = if room >= NARROW {
        (fixed, room)
    } else {
        let end = line.trim_end().len();
        line.truncate(end);
        line.push('\n');
        line.extend(std::iter::repeat_n(' ', INDENT));
        (INDENT, total.saturating_sub(INDENT).max(NARROW))
    };
    let margin = format!("\n{}", " ".repeat(indent));
    let mut lines = wrap(&cell.text, room);
    if !look.whole {
        lines = cut(lines, room);
    }
    line.push_str(&lines.join(&margin));
}

fn paint(line: &mut String, cell: &Cell, look: Look) {
    let code = match cell.tone {
        _ if !look.colour => None,
        Tone::Plain => None,
        Tone::Good => Some("32"),
        Tone::Waiting => Some("33"),
        Tone::Bad => Some("31"),
    };
    match code {
        None => line.push_str(&cell.text),
        Some(code) => {
            for part in ["\u{1b}[", code, "m", &cell.text, "\u{1b}[0m"] {
                line.push_str(part);
            }
        }
    }
}

/// Lines of at most `room` characters, broken between words where possible.
pub fn wrap(text: &str, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        while !word.is_empty() {
            let line = lines.last().map_or(0, |line| width(line));
            let space = usize::from(line > 0);
            if line + space + word.len() <= room {
                let rest: String = std::mem::take(&mut word).into_iter().collect();
                push(&mut lines, space, &rest);
            } else if line > 0 {
                lines.push(String::new());
            } else {
                let piece: String = word.drain(..room).collect();
                push(&mut lines, 0, &piece);
            }
        }
    }
    lines
}

fn push(lines: &mut [String], space: usize, piece: &str) {
    if let Some(line) = lines.last_mut() {
        line.extend(std::iter::repeat_n(' ', space));
        line.push_str(piece);
    }
}

fn cut(mut lines: Vec<String>, room: usize) -> Vec<String> {
    if lines.len() <= LINES {
        return lines;
    }
    lines.truncate(LINES);
    if let Some(last) = lines.last_mut() {
        while width(last) + 3 > room {
            last.pop();
        }
        last.push_str("...");
    }
    lines
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A word of a command that people copy into a shell.
pub fn quote(word: &str) -> String {
    let word = one_line(word);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// An age, as `kubectl` prints it: 45s, 12m, 3h20m, 5d, 2y40d. A time in the future, from
/// clocks that differ, becomes 0s.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    length(now.as_second().saturating_sub(since.as_second()))
}

/// A number of seconds, with two units where one would be imprecise.
pub fn length(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, sign: char, small: i64, minor: char| {
        let (whole, rest) = (seconds / big, seconds % big / small);
        if rest == 0 {
            format!("{whole}{sign}")
        } else {
            format!("{whole}{sign}{rest}{minor}")
        }
    };
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(MINUTE, 'm', 1, 's'),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(HOUR, 'h', MINUTE, 'm'),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(DAY, 'd', HOUR, 'h'),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        _ => two(YEAR, 'y', DAY, 'd'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "WHY"]);
        let good = Cell::new("Ready").toned(Tone::Good);
        table.row(vec![Cell::new("web"), good, Cell::remark("")]);
        let why = "the range 192.0.2.0/30 has no free address; delete a Service, or add a pool";
        table.row(vec![
            Cell::new("a-longer-name"),
            Cell::new("NoAddressAvailable").toned(Tone::Bad),
            Cell::remark(why),
        ]);
        table
    }

    #[test]
    fn a_pipe_gets_one_line_a_row() {
        insta::assert_snapshot!(sample().render(Look::default()), @r"
        NAME            STATE                WHY
        web             Ready
        a-longer-name   NoAddressAvailable   the range 192.0.2.0/30 has no free address; delete a Service, or add a pool
        ");
    }

    #[test]
    fn a_terminal_gets_wrapped_cells_below_or_behind() {
        let at = |width| {
            sample().render(Look {
                width: Some(width),
                ..Look::default()
            })
        };
        assert_eq!(at(200), sample().render(Look::default()));
        insta::assert_snapshot!(at(72), @r"
        NAME            STATE                WHY
        web             Ready
        a-longer-name   NoAddressAvailable   the range 192.0.2.0/30 has no free
                                             address; delete a Service, or add a
                                             pool
        ");
        insta::assert_snapshot!(at(40), @r"
        NAME            STATE                WHY
        web             Ready
        a-longer-name   NoAddressAvailable
            the range 192.0.2.0/30 has no free
            address; delete a Service, or add a
            pool
        ");
        for width in 0..40 {
            assert!(!at(width).is_empty(), "{width}");
        }
    }

    #[test]
    fn a_long_text_is_cut_after_three_lines() {
        let mut table = Table::new(&["NAME", "WHY"]);
        table.row(vec![Cell::new("web"), Cell::remark(&"word ".repeat(40))]);
        let look = Look {
            width: Some(40),
            ..Look::default()
        };
        insta::assert_snapshot!(table.render(look), @r"
        NAME   WHY
        web    word word word word word word
               word word word word word word
               word word word word word word...
        ");
    }

    #[test]
    fn colour_does_not_count_as_width() {
        let look = Look {
            colour: true,
            ..Look::default()
        };
        let painted = sample().render(look);
        assert!(painted.contains("\u{1b}[32mReady\u{1b}[0m\n"), "{painted}");
        let plain = painted
            .replace("\u{1b}[0m", "")
            .replace("\u{1b}[32m", "")
            .replace("\u{1b}[31m", "");
        assert_eq!(plain, sample().render(Look::default()));
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(one_line("a\u{1b}[2Jb\r\nc\t"), "a [2Jb c");
        assert_eq!(Cell::new("\n").text, NOTHING);
    }

    #[test]
    fn a_cell_is_bounded() {
        for cell in [
            Cell::new("x".repeat(40_000)),
            Cell::remark(&"x".repeat(40_000)),
        ] {
            assert_eq!(cell.width(), LONGEST);
            assert!(cell.text.ends_with("..."));
        }
    }

    /// For a POSIX shell.
    #[test]
    fn words_of_commands_are_quoted() {
        for (word, quoted) in [
            ("web", "web"),
            ("192.0.2.1,2001:db8::1", "192.0.2.1,2001:db8::1"),
            ("", "''"),
            ("a b", "'a b'"),
            ("x; rm -rf ~", "'x; rm -rf ~'"),
            ("$(id)", "'$(id)'"),
            ("it's", r"'it'\''s'"),
            ("a\nb\u{1b}[2J", "'a b [2J'"),
        ] {
            assert_eq!(quote(word), quoted, "{word:?}");
        }
    }

    #[test]
    fn words_longer_than_the_line_are_broken() {
        assert_eq!(wrap("abcdefgh ij k", 3), ["abc", "def", "gh", "ij", "k"]);
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(wrap("a b", 0), ["a", "b"]);
    }

    #[test]
    fn ages_are_said_as_kubectl_says_them() {
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (7_200, "120m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (90_000, "25h"),
            (259_200, "3d"),
            (262_800, "3d1h"),
            (864_000, "10d"),
            (66_528_000, "2y40d"),
        ] {
            assert_eq!(length(seconds), text, "{seconds}");
        }
    }
}
