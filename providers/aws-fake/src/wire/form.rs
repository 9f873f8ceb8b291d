//! The parameters of a request: a form in which lists and structures are flat, such as
//! `Tags.member.1.Key=a` (Elastic Load Balancing) or `Tag.1.Key=a` (EC2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::Service;
use crate::state::Refusal;

/// Parameters that nobody has read yet. Whoever reads one takes it out, and [`Form::finish`]
/// refuses the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    service: Service,
    /// The path of this form in the request, for messages.
    path: String,
    values: BTreeMap<String, String>,
}

// === impl Form ===

impl Form {
    /// Parses the body of a request.
    pub(crate) fn parse(service: Service, body: &[u8]) -> Result<Self, Refusal> {
        let malformed = |what: &str| Refusal::new("MalformedQueryString", what);
        let text = std::str::from_utf8(body).map_err(|_| malformed("The body is not text"))?;
        let mut values = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                (pair.split_once('=')).ok_or_else(|| malformed("A parameter without a value"))?;
            let key = decode(key).ok_or_else(|| malformed("An escape sequence is not valid"))?;
            let value =
                decode(value).ok_or_else(|| malformed("An escape sequence is not valid"))?;
            if values.insert(key.clone(), value).is_some() {
                return Err(malformed(&format!("The parameter {key} occurs twice")));
            }
        }
        Ok(Self {
            service,
            path: String::new(),
            values,
        })
    }

    /// All parameters, for the log.
    pub(crate) fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// A parameter that may be absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// A parameter that must be there, and not be empty.
    pub(crate) fn need(&mut self, name: &str) -> Result<String, Refusal> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            let name = format!("{}{name}", self.path);
            match self.service {
                Service::Elb => Refusal::validation(format!(
                    "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
                )),
                Service::Ec2 => Refusal::new(
                    "MissingParameter",
                    format!("The request must contain the parameter {name}"),
                ),
            }
        })
    }

    /// A number or another value that is parsed.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let parsed = value.parse().map_err(|_| self.wrong(name, &value))?;
        Ok(Some(parsed))
    }

    /// A number in a range.
    pub(crate) fn number<T>(
        &mut self,
        name: &str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, Refusal>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(number) = self.parsed::<T>(name)? else {
            return Ok(None);
        };
        if range.contains(&number) {
            return Ok(Some(number));
        }
        Err(self.wrong(name, &number.to_string()))
    }

    /// A list of texts. An empty list of Elastic Load Balancing is a parameter without a value.
    pub(crate) fn list(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        let mut all = Vec::new();
        for mut one in self.items(name)? {
            match one.values.remove("") {
                Some(value) if one.values.is_empty() => all.push(value),
                _ => return Err(self.wrong(name, "a structure")),
            }
        }
        Ok(all)
    }

    /// A list of structures.
    pub(crate) fn structures(&mut self, name: &str) -> Result<Vec<Self>, Refusal> {
        let all = self.items(name)?;
        if all.iter().any(|one| one.values.contains_key("")) {
            return Err(self.wrong(name, "a text"));
        }
        Ok(all)
    }

    /// The parameters of one structure.
    pub(crate) fn structure(&mut self, name: &str) -> Option<Self> {
        let prefix = format!("{name}.");
        let inside = self.values.keys().filter(|key| key.starts_with(&prefix));
        let inside: Vec<String> = inside.cloned().collect();
        if inside.is_empty() {
            return None;
        }
        let values = inside.into_iter().filter_map(|key| {
            let value = self.values.remove(&key)?;
            Some((key[prefix.len()..].to_owned(), value))
        });
        let values = values.collect();
        Some(Self {
            service: self.service,
            path: format!("{}{prefix}", self.path),
            values,
        })
    }

    /// The items of a list; a text has the name "" in its item.
    fn items(&mut self, name: &str) -> Result<Vec<Self>, Refusal> {
        let prefix = match self.service {
            Service::Elb => format!("{name}.member."),
            Service::Ec2 => format!("{name}."),
        };
        if self.service == Service::Elb && self.values.get(name).is_some_and(String::is_empty) {
            self.values.remove(name);
        }
        let mut items: BTreeMap<usize, BTreeMap<String, String>> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (key, value) in &self.values {
            let Some(rest) = key.strip_prefix(&prefix) else {
                continue;
            };
            let (index, field) = rest.split_once('.').unwrap_or((rest, ""));
            let canonical = !index.starts_with(['0', '+']);
            let index = index.parse::<usize>().ok().filter(|_| canonical);
            let index = index.ok_or_else(|| self.unknown(key))?;
            let item = items.entry(index).or_default();
            item.insert(field.to_owned(), value.clone());
            taken.insert(key.clone());
        }
        self.values.retain(|key, _| !taken.contains(key));
        let complete = items.keys().copied().eq(1..=items.len());
        if !complete {
            return Err(self.wrong(name, "a list with a gap"));
        }
        let items = items.into_iter().map(|(index, values)| Self {
            service: self.service,
            path: format!("{}{prefix}{index}.", self.path),
            values,
        });
        Ok(items.collect())
    }

    /// Refuses parameters that nobody has read.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.unknown(key)),
        }
    }

    fn unknown(&self, key: &str) -> Refusal {
        let message = format!("The parameter {}{key} is not recognized", self.path);
        match self.service {
            Service::Elb => Refusal::validation(message),
            Service::Ec2 => Refusal::new("UnknownParameter", message),
        }
    }

    /// The error for a value of the wrong form.
    pub(crate) fn wrong(&self, name: &str, value: &str) -> Refusal {
        let message = format!("Invalid value '{value}' for {}{name}", self.path);
        match self.service {
            Service::Elb => Refusal::validation(message),
            Service::Ec2 => Refusal::new("InvalidParameterValue", message),
        }
    }
}

/// Decodes `%41` and `+`.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
