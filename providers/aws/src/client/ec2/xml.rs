//! An XML document as a tree, for the answers of EC2: elements and their text. Attributes,
//! comments and namespaces mean nothing there. Pure. No document type is accepted, so nothing
//! expands, and the depth is bounded.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use thiserror::Error;

/// EC2's answers have less than ten levels.
const DEEPEST: usize = 32;

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Its name without a prefix.
    pub(super) name: String,
    /// Its text, all pieces together, without space around it.
    pub(super) text: String,
    /// The elements in it, in order.
    pub(super) children: Vec<Element>,
}

/// Why a document cannot be read.
#[derive(Debug, Error)]
pub(super) enum XmlError {
    #[error("not UTF-8")]
    Encoding,
    #[error("not well-formed: {0}")]
    Syntax(String),
    #[error("ends too early")]
    Incomplete,
    #[error("more than {DEEPEST} levels")]
    Deep,
    #[error("no element")]
    Empty,
}

/// Reads a document. Returns its outermost element.
pub(super) fn parse(document: &[u8]) -> Result<Element, XmlError> {
    let text = std::str::from_utf8(document).map_err(|_| XmlError::Encoding)?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let syntax = |error: quick_xml::Error| XmlError::Syntax(error.to_string());
    // The elements that are open, the outermost first.
    let mut open: Vec<Element> = Vec::new();
    let mut whole = None;
    loop {
        let piece = match reader.read_event().map_err(syntax)? {
            Event::Eof => break,
            Event::DocType(_) => return Err(XmlError::Syntax("a document type".into())),
            Event::Start(start) => {
                if open.len() >= DEEPEST {
                    return Err(XmlError::Deep);
                }
                if open.is_empty() && whole.is_some() {
                    return Err(XmlError::Syntax("two outermost elements".into()));
                }
                open.push(Element {
                    name: start.local_name().as_ref().to_owned(),
                    ..Element::default()
                });
                continue;
            }
            Event::End(_) => {
                let Some(mut element) = open.pop() else {
                    return Err(XmlError::Incomplete);
                };
                let trimmed = element.text.trim();
                if trimmed.len() < element.text.len() {
                    element.text = trimmed.into();
                }
                match open.last_mut() {
                    Some(outer) => outer.children.push(element),
                    None => whole = Some(element),
                }
                continue;
            }
            Event::Text(text) => text.xml10_content().into_owned(),
            Event::CData(text) => text.xml10_content().into_owned(),
            Event::GeneralRef(entity) => {
                let number = entity.resolve_char_ref().map_err(syntax)?;
                match number {
                    Some(character) => character.into(),
                    None => resolve_predefined_entity(&entity)
                        .ok_or_else(|| XmlError::Syntax("an unknown entity".into()))?
                        .into(),
                }
            }
            _ => continue,
        };
        if let Some(element) = open.last_mut() {
            element.text.push_str(&piece);
        }
    }
    if !open.is_empty() {
        return Err(XmlError::Incomplete);
    }
    whole.ok_or(XmlError::Empty)
}

// === impl Element ===

impl Element {
    /// The first element of this name in it.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of an element in it; `None` if it is absent or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let child = self.child(name)?;
        (!child.text.is_empty()).then_some(child.text.as_str())
    }

    /// The same; absent is empty.
    pub(super) fn string(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    /// The same as a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// The entries of a list in it.
    pub(super) fn items(&self, name: &str) -> impl Iterator<Item = &Self> {
        let list = self.child(name).into_iter();
        list.flat_map(|list| list.children.iter().filter(|child| child.name == "item"))
    }
}

#[cfg(test)]
mod tests;
