//! What the seals of an Announcer object prove, as bytes. Pure.
//!
//! All that announcers read of the object is in it: theirs, and that of the node itself, which takes
//! from it why it holds an address. Conditions, problems and counts are for people and for the
//! controller; they are not sealed.
//!
//! The name of the node and the UID of the object are in it, so a status that was sealed for one
//! object counts in no other one: not in that of another node, nor in a later one of the same name.
//!
//! Every text, list and option begins with its length, so that no two statuses have one encoding.

use ballast_agent::seal::object::{Content, ObjectSeal};
use ballast_crds::{AnnouncerInterface, AnnouncerStatus, Holding, Seal};

/// Names this encoding. Another one gets another number.
const LABEL: &str = "ballast.dev Announcer 1";

/// What seals of the object prove.
pub fn content(node: &str, uid: &str, status: &AnnouncerStatus) -> Content {
    let mut to = Encoder::default();
    to.text(LABEL);
    to.text(node);
    to.text(uid);
    to.option(status.incarnation.as_deref(), Encoder::text);
    to.option(status.serial, Encoder::number);
    to.list(&status.interfaces, interface);
    to.list(&status.holdings, holding);
    Content::new(&to.0)
}

/// The seals of a status; what has another form is none.
pub fn seals(status: &AnnouncerStatus) -> Vec<ObjectSeal> {
    let seals = status.seals.iter();
    let mut seals: Vec<_> = seals
        .take(ballast_agent::seal::MAX_KNOWN)
        .filter_map(|seal| seal.0.parse().ok())
        .collect();
    seals.shrink_to_fit();
    seals
}

/// As the object has them.
pub fn written(seals: &[ObjectSeal]) -> Vec<Seal> {
    seals.iter().map(|seal| Seal(seal.to_string())).collect()
}

fn interface(to: &mut Encoder, interface: &AnnouncerInterface) {
    let AnnouncerInterface {
        name,
        mac,
        addresses,
        usable,
    } = interface;
    to.text(name);
    to.text(mac);
    to.list(addresses, |to, address| to.text(&address.0));
    to.number(i64::from(*usable));
}

fn holding(to: &mut Encoder, holding: &Holding) {
    let Holding {
        address,
        epoch,
        revision,
        interface,
        mac,
        successors,
        since,
        cause,
        previous,
    } = holding;
    to.text(address);
    to.number(*epoch);
    to.number(*revision);
    to.option(interface.as_deref(), Encoder::text);
    to.option(mac.as_deref(), Encoder::text);
    to.list(successors, |to, node| to.text(&node.0));
    to.option(since.as_ref(), |to, since| to.text(&since.0.to_string()));
    to.option(cause.as_deref(), Encoder::text);
    to.option(previous.as_deref(), Encoder::text);
}

#[derive(Default)]
struct Encoder(Vec<u8>);

// === impl Encoder ===

impl Encoder {
    fn number(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn length(&mut self, length: usize) {
        // No status is as long as this could count.
        self.number(i64::try_from(length).unwrap_or(i64::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], item: impl Fn(&mut Self, &T)) {
        self.length(items.len());
        for it in items {
            item(self, it);
        }
    }

    fn option<T>(&mut self, value: Option<T>, some: impl Fn(&mut Self, T)) {
        self.length(usize::from(value.is_some()));
        if let Some(value) = value {
            some(self, value);
        }
    }
}

#[cfg(test)]
mod tests;
