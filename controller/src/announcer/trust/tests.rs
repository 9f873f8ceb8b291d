use ballast_agent::seal::object::Content;
use ballast_announce::NodeName;

use super::*;

const B: &str = "b";

/// A keyring of one key, all of whose bytes are this.
fn keyring(byte: u8) -> Arc<Keyring> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    std::fs::write(&path, format!("{byte:02x}").repeat(32)).unwrap();
    Arc::new(Keyring::open_file(path).unwrap())
}

/// An object with this content, sealed with this key.
fn object(key: Option<u8>, content: &str, serial: i64) -> AnnouncerFacts {
    let content = Content::new(content.as_bytes());
    AnnouncerFacts {
        name: NodeName::new(B),
        incarnation: None,
        interfaces: vec![],
        claims: vec![],
        own: None,
        uid: "u".into(),
        written: true,
        serial,
        content,
        seals: key.map_or_else(Vec::new, |key| keyring(key).seal_object(&content)),
    }
}

struct Case {
    trust: Trust,
    start: Instant,
}

impl Case {
    fn new(keyring: Option<Arc<Keyring>>) -> Self {
        Self {
            trust: Trust::new(keyring),
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn change(&mut self, seconds: u64, facts: Option<&AnnouncerFacts>) -> Verdict {
        let (name, now) = (Arc::from(B), self.at(seconds));
        self.trust.change(&name, facts.cloned().map(Arc::new), now)
    }

    /// The content that counts.
    fn counts(&mut self, seconds: u64) -> Option<Content> {
        let counting = self.trust.counting(self.at(seconds));
        counting.first().map(|facts| facts.content)
    }

    fn reported(&mut self, seconds: u64) -> Option<Refusal> {
        let reported = self.trust.refused(self.at(seconds));
        reported.first().map(|(_, why)| *why)
    }
}

#[tokio::test]
async fn what_is_not_sealed_changes_nothing() {
    let mut case = Case::new(Some(keyring(1)));
    let good = object(Some(1), "good", 5);
    for (what, forged, why) in [
        ("no seal", object(None, "forged", 9), Refusal::NoSeal),
        (
            "another key",
            object(Some(2), "forged", 9),
            Refusal::WrongSeal,
        ),
        (
            "the seals of another content",
            AnnouncerFacts {
                seals: good.seals.clone(),
                ..object(None, "forged", 9)
            },
            Refusal::WrongSeal,
        ),
        (
            "no status any more",
            AnnouncerFacts {
                written: false,
                ..object(None, "", 0)
            },
            Refusal::NoSeal,
        ),
    ] {
        case = Case::new(Some(keyring(1)));
        if what != "no status any more" {
            let refused = Verdict::Refused(why, true);
            assert_eq!(case.change(0, Some(&forged)), refused, "{what}, first");
            assert_eq!(case.counts(0), None, "{what}, first");
        }
        assert_eq!(case.change(1, Some(&good)), Verdict::Counts, "{what}");
        let before = case.reported(1);
        assert!(matches!(case.change(2, Some(&forged)), Verdict::Refused(it, _) if it == why));
        assert_eq!(case.counts(3600), Some(good.content), "{what}");
        assert_eq!(case.reported(3600), Some(why), "{what}: {before:?}");
        assert_eq!(case.trust.refused_now(), [Arc::from(B)]);
    }
    let newer = object(Some(1), "newer", 6);
    assert_eq!(case.change(4000, Some(&newer)), Verdict::Counts);
    assert_eq!(case.counts(4000), Some(newer.content));
}

#[tokio::test]
async fn an_old_status_does_not_count_again() {
    let mut case = Case::new(Some(keyring(1)));
    let (old, new) = (object(Some(1), "old", 5), object(Some(1), "new", 6));
    for (facts, verdict) in [
        (&old, Verdict::Counts),
        (&new, Verdict::Counts),
        (&old, Verdict::Refused(Refusal::Outdated, true)),
    ] {
        assert_eq!(case.change(0, Some(facts)), verdict);
    }
    assert_eq!(case.counts(0), Some(new.content));
    assert_eq!(case.reported(0), None, "a late write is one, too");
    // An object that was created anew begins anew.
    let anew = AnnouncerFacts {
        uid: "v".into(),
        ..object(Some(1), "anew", 1)
    };
    assert_eq!(case.change(1, None), Verdict::Nothing);
    assert_eq!(case.change(2, Some(&anew)), Verdict::Counts);
    assert_eq!(case.counts(3600), Some(anew.content));
}

#[tokio::test]
async fn a_deleted_object_counts_for_a_moment() {
    let mut case = Case::new(Some(keyring(1)));
    let good = object(Some(1), "good", 5);
    case.change(0, Some(&good));
    case.change(10, None);
    // Created, and its status is not written yet.
    let created = AnnouncerFacts {
        uid: "v".into(),
        written: false,
        ..object(None, "", 0)
    };
    assert_eq!(case.change(12, Some(&created)), Verdict::Nothing);
    assert_eq!(case.counts(14), Some(good.content));
    assert_eq!(case.trust.expiry(), Some(case.at(15)));
    assert_eq!(case.counts(15), None);
    assert_eq!(case.reported(15), None);
}

/// Somebody who writes again and again causes one report, and each is news once.
#[tokio::test]
async fn a_refused_object_is_reported_for_a_while() {
    let mut case = Case::new(Some(keyring(1)));
    let (good, forged) = (object(Some(1), "good", 5), object(None, "forged", 6));
    case.change(0, Some(&good));
    for round in 0..10 {
        let news = round == 0;
        let verdict = Verdict::Refused(Refusal::NoSeal, news);
        assert_eq!(case.change(2 * round, Some(&forged)), verdict, "{round}");
        assert_eq!(case.change(2 * round + 1, Some(&good)), Verdict::Counts);
        assert_eq!(case.reported(2 * round + 1), Some(Refusal::NoSeal));
    }
    assert_eq!(case.trust.next_report(), Some(case.at(19) + REPORTED));
    assert_eq!(case.reported(318), Some(Refusal::NoSeal));
    assert_eq!(case.reported(319), None);
    assert_eq!(
        case.change(400, Some(&forged)),
        Verdict::Refused(Refusal::NoSeal, true)
    );
}

#[tokio::test]
async fn without_a_key_everything_counts() {
    let mut case = Case::new(None);
    for facts in [object(None, "one", 5), object(Some(2), "two", 4)] {
        assert_eq!(case.change(0, Some(&facts)), Verdict::Counts);
        assert_eq!(case.counts(0), Some(facts.content));
    }
    assert_eq!(case.reported(0), None);
}
