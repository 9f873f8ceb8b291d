//! Writes XML.

use std::fmt::Write as _;

/// XML that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Xml {
    out: String,
}

// === impl Xml ===

impl Xml {
    /// The first line of a document.
    pub(crate) fn declaration(&mut self) {
        self.out
            .push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    }

    /// The outermost element.
    pub(crate) fn root(&mut self, name: &str, namespace: &str, content: impl FnOnce(&mut Self)) {
        let _ = write!(self.out, "<{name} xmlns=\"{namespace}\">");
        content(self);
        let _ = write!(self.out, "</{name}>");
    }

    /// An element with elements.
    pub(crate) fn node(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        let _ = write!(self.out, "<{name}>");
        let inside = self.out.len();
        content(self);
        if self.out.len() == inside {
            self.out.truncate(start);
            let _ = write!(self.out, "<{name}/>");
        } else {
            let _ = write!(self.out, "</{name}>");
        }
    }

    /// An element with a text.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "texts, numbers and references to them"
    )]
    pub(crate) fn text(&mut self, name: &str, text: impl ToString) {
        let text = text.to_string();
        self.node(name, |xml| {
            for c in text.chars() {
                match c {
                    '&' => xml.out.push_str("&amp;"),
                    '<' => xml.out.push_str("&lt;"),
                    '>' => xml.out.push_str("&gt;"),
                    '"' => xml.out.push_str("&quot;"),
                    '\'' => xml.out.push_str("&apos;"),
                    c => xml.out.push(c),
                }
            }
        });
    }

    /// An element with a text, if there is one.
    pub(crate) fn optional(&mut self, name: &str, text: Option<impl ToString>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// An element with one element of the same name for each item.
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        item: &str,
        items: impl IntoIterator<Item = T>,
        content: impl Fn(&mut Self, T),
    ) {
        self.node(name, |xml| {
            for one in items {
                xml.node(item, |xml| content(xml, one));
            }
        });
    }

    /// The same with a text for each item.
    pub(crate) fn texts<T: ToString>(
        &mut self,
        name: &str,
        item: &str,
        items: impl IntoIterator<Item = T>,
    ) {
        self.node(name, |xml| {
            for one in items {
                xml.text(item, one);
            }
        });
    }

    pub(crate) fn append(&mut self, other: &Self) {
        self.out.push_str(&other.out);
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }
}
