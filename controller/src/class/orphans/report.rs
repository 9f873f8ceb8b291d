//! What a survey has found, for the condition, the event and the metrics. Pure.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use ballast_provider::{Billed, Key, Prices, ServiceId};
use jiff::Timestamp;

/// Orphans that a message names.
const NAMED: usize = 5;

/// The result of one survey.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The load balancers without a Service, by Service.
    pub orphans: Vec<Orphan>,
    /// Load balancers that were kept on purpose when their Service was deleted. They are billed.
    pub retained: Vec<String>,
    /// Load balancers that people want to keep, whatever happens.
    pub kept: Vec<String>,
    /// Objects of this class whose tags do not name a Service.
    pub unnamed: Vec<String>,
    /// Somebody else gives signs of life for this cluster's load balancers: the object that shows it.
    pub shared: Option<String>,
    /// Why nothing is deleted although it is due.
    pub halt: Option<Halt>,
}

/// What a Service that does not exist has on one balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The Service.
    pub id: ServiceId,
    /// The balancer.
    pub key: Key,
    /// The name of the load balancer in the cloud, or of another object if there is none.
    pub name: String,
    /// What is billed for it.
    pub billed: Billed,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is only reported: the class does not ask for more.
    Reported,
    /// It is younger than every Service of this API server, which may come from a backup. Only reported.
    Younger,
    /// It is deleted after this time, if its Service does not return.
    Due(Timestamp),
    /// It is being deleted.
    Deleted,
}

/// Why nothing is deleted although it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The API server lists no Service at all.
    NoServices,
    /// More would be deleted within an hour than is plausible.
    Breaker {
        /// So many are due, or were deleted within the hour.
        due: usize,
        /// So many may be deleted within an hour.
        limit: usize,
    },
}

/// What people run to delete them.
fn command(flags: &str) -> String {
    let words = ["ballast orphans", flags, "--compare --delete"];
    let words = words.into_iter().filter(|it| !it.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
impl Orphan {
    /// One load balancer of a Service of this name.
    pub(crate) fn test(name: &str) -> Self {
        let id = ServiceId {
            namespace: "shop".into(),
            name: name.into(),
            uid: name.into(),
        };
        Self {
            key: Key::alone(&id),
            id,
            name: format!("bl-{name}"),
            billed: Billed {
                load_balancers: 1,
                public_addresses: 0,
            },
            verdict: Verdict::Reported,
        }
    }
}

// === impl Found ===

impl Found {
    /// What is billed for the orphans.
    pub fn billed(&self) -> Billed {
        self.orphans.iter().map(|one| one.billed).sum()
    }

    /// The condition `Orphaned` of the class, in words. The same until something changes. `flags`: with which
    /// `ballast orphans` looks at its cloud ([`crate::class::ClassView::cloud_flags`]).
    pub fn message(&self, flags: &str) -> String {
        let all: BTreeSet<&Key> = self.orphans.iter().map(|one| &one.key).collect();
        let mut says = match all.len() {
            0 => "Every load balancer of this class has a Service".to_owned(),
            count => {
                let cost = Prices::default().per_month(self.billed());
                format!(
                    "{count} {} about {cost} a month: {}. {}",
                    if count == 1 {
                        "load balancer has no Service in this cluster and costs"
                    } else {
                        "load balancers have no Service in this cluster and cost"
                    },
                    self.names(),
                    self.outlook(flags)
                )
            }
        };
        let apart = [
            (&self.retained, "retained (deletionPolicy: Retain)"),
            (&self.kept, "kept (tag ballast.dev/keep)"),
            (&self.unnamed, "without the name of a Service in the tags"),
        ];
        for (names, what) in apart.into_iter().filter(|(names, _)| !names.is_empty()) {
            let _ = write!(says, ". {} {what}", names.len());
        }
        says
    }

    /// The object that a message of [`Self::shared_message`] names.
    pub fn object_in(message: &str) -> &str {
        let object = message.split_once("a tag of ").map(|(_, rest)| rest);
        let object = object.and_then(|rest| rest.split_once(". "));
        object.map_or("a load balancer", |(object, _)| object)
    }

    /// The condition `IdentityShared` of the class, in words, if it holds. Releases wait for its end.
    pub fn shared_message(&self) -> Option<String> {
        let object = self.shared.as_ref()?;
        Some(format!(
            "Another cluster with the UID of this one works on its load balancers: it has written a tag of {object}. One of them is a copy, for example from a backup of etcd. Ballast deletes nothing until the other one has written nothing for three days. In the copy, uninstall Ballast without a teardown: helm uninstall --no-hooks"
        ))
    }

    fn names(&self) -> String {
        let named = self.orphans.iter().take(NAMED);
        let named: Vec<String> = named
            .map(|one| format!("{} (Service {})", one.name, one.id))
            .collect();
        let more = self.orphans.len().saturating_sub(NAMED);
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        named.join(", ") + &more
    }

    /// What becomes of them, and what people can do.
    fn outlook(&self, flags: &str) -> String {
        if self.shared.is_some() {
            return "Nothing is deleted: another cluster with the same UID uses them".to_owned();
        }
        if let Some(halt) = &self.halt {
            return format!(
                "Nothing is deleted automatically: {halt}. Check them, and delete them with `{}`",
                command(flags)
            );
        }
        let count = |of: fn(&Verdict) -> bool| {
            let mut all = self.orphans.iter().map(|one| &one.verdict);
            all.by_ref().filter(|verdict| of(verdict)).count()
        };
        let due = self.orphans.iter().filter_map(|one| match one.verdict {
            Verdict::Due(at) => Some(at),
            _ => None,
        });
        let first = due.min();
        let mut says = Vec::new();
        if let Some(first) = first {
            let count = count(|it| matches!(it, Verdict::Due(_)));
            says.push(format!(
                "Ballast deletes {count} of them, the first after {first:.0}; the tag ballast.dev/keep prevents it"
            ));
        }
        let younger = count(|it| *it == Verdict::Younger);
        if younger > 0 {
            says.push(format!(
                "{younger} are younger than every Service here, as after a restore from a backup, and only reported"
            ));
        }
        if count(|it| *it == Verdict::Reported) > 0 {
            says.push(format!(
                "`{}` deletes them; `spec.orphans: Delete` makes Ballast do it",
                command(flags)
            ));
        }
        if count(|it| *it == Verdict::Deleted) > 0 {
            says.push("Ballast is deleting them".to_owned());
        }
        says.join(". ")
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServices => f.write_str("the API server lists no Service at all"),
            Self::Breaker { due, limit } => write!(
                f,
                "{due} within an hour are more than the {limit} that are plausible"
            ),
        }
    }
}
