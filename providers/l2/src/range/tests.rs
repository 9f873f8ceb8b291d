use super::*;

fn entry(text: &str) -> Entry {
    text.parse().unwrap()
}

#[test]
fn the_three_forms_of_both_families() {
    for (text, range, form) in [
        ("10.0.0.0/30", "10.0.0.0-10.0.0.3", Form::Cidr(30)),
        (" 10.0.0.7/32 ", "10.0.0.7", Form::Cidr(32)),
        ("10.0.0.5-10.0.0.9", "10.0.0.5-10.0.0.9", Form::Span),
        ("10.0.0.5 - 10.0.0.9", "10.0.0.5-10.0.0.9", Form::Span),
        ("10.0.0.5-10.0.0.5", "10.0.0.5", Form::Span),
        ("10.0.0.5", "10.0.0.5", Form::Single),
        ("fd00::/126", "fd00::-fd00::3", Form::Cidr(126)),
        ("fd00::10-fd00::20", "fd00::10-fd00::20", Form::Span),
        ("FD00::A", "fd00::a", Form::Single),
    ] {
        let entry = entry(text);
        assert_eq!(entry.range().to_string(), range, "{text}");
        assert_eq!(entry.form(), form, "{text}");
        assert_eq!(entry.to_string(), text.trim());
    }
}

#[test]
fn what_is_no_entry_is_named_with_the_reason() {
    for (text, needle) in [
        ("", "neither a CIDR"),
        ("web", "neither a CIDR"),
        ("10.0.0.300/24", "neither a CIDR"),
        ("10.0.0.0/33", "neither a CIDR"),
        ("10.0.0.1-", "neither a CIDR"),
        ("10.0.0.1-10.0.0.2-10.0.0.3", "neither a CIDR"),
        ("010.0.0.1", "neither a CIDR"),
        (
            "10.0.0.5/24",
            "write 10.0.0.0/24 for the network or 10.0.0.5",
        ),
        ("10.0.0.1-fd00::1", "one IP family"),
        ("10.0.0.9-10.0.0.1", "ends before"),
        ("fd00::9-fd00::1", "ends before"),
        ("0.0.0.0/0", "unspecified"),
        ("126.0.0.0-128.0.0.0", "loopback"),
        ("224.0.0.0/8", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::/0", "unspecified"),
        ("::1", "loopback"),
        ("::ffff:10.0.0.1", "IPv4-mapped"),
        ("fe80::/64", "link-local"),
        ("ff02::1", "multicast"),
    ] {
        let error = text.parse::<Entry>().unwrap_err().to_string();
        assert!(
            error.contains(needle) && error.contains(&format!("{text:?}")),
            "{error}"
        );
    }
    assert!(
        parse(&["10.0.0.0/24", "oops", "worse"])
            .is_err_and(|error| { error == EntryError::Syntax("oops".to_owned()) })
    );
}

#[test]
fn overlap_needs_one_family_and_a_common_address() {
    for (a, b, common) in [
        (
            "10.0.0.0/24",
            "10.0.0.128/25",
            Some("10.0.0.128-10.0.0.255"),
        ),
        ("10.0.0.0/24", "10.0.0.255-10.0.1.9", Some("10.0.0.255")),
        ("10.0.0.0/24", "10.0.1.0/24", None),
        ("10.0.0.7", "10.0.0.7", Some("10.0.0.7")),
        ("::2-::ffff", "0.0.0.2-0.0.0.9", None),
        ("fd00::/64", "fd00::5-fd00::6", Some("fd00::5-fd00::6")),
    ] {
        let (a, b) = (a.parse::<Entry>(), b.parse::<Entry>());
        let (Ok(a), Ok(b)) = (a, b) else { continue };
        let both = [a.range().overlap(&b.range()), b.range().overlap(&a.range())];
        for overlap in both {
            assert_eq!(overlap.map(|o| o.to_string()).as_deref(), common, "{a} {b}");
        }
    }
}
