use super::*;

fn text(document: &str) -> String {
    parse(document.as_bytes()).unwrap().text
}

#[test]
fn text_has_its_entities_and_no_space_around_it() {
    assert_eq!(
        text("<a> x &amp; y &#65;&#x42;&lt;&gt;&quot;&apos; </a>"),
        "x & y AB<>\"'"
    );
    assert_eq!(text("<a><![CDATA[ <&> ]]></a>"), "<&>");
    assert_eq!(text("<a>x<!-- no -->y</a>"), "xy");
    assert_eq!(text("<a/>"), "");
}

#[test]
fn elements_are_found_by_their_local_names() {
    let document = "<?xml version=\"1.0\"?><n:r xmlns:n=\"u\" k=\"v\"><l><item><id>1</id></item>\
                    <item><id>2</id></item><other/></l><n:id>3</n:id><empty/></n:r>";
    let root = parse(document.as_bytes()).unwrap();
    assert_eq!(root.name, "r");
    let ids: Vec<_> = root.items("l").filter_map(|item| item.text("id")).collect();
    assert_eq!(ids, ["1", "2"]);
    assert_eq!(root.number::<u8>("id"), Some(3));
    assert_eq!(root.text("empty"), None);
    assert_eq!(root.items("absent").count(), 0);
}

#[test]
fn what_is_no_document_is_refused() {
    let deep = "<a>".repeat(40) + &"</a>".repeat(40);
    for document in [
        "",
        "text",
        "<a>",
        "<a></b>",
        "<a/><b/>",
        "<a>&unknown;</a>",
        "<a>&#xD800;</a>",
        "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
        deep.as_str(),
        "<html><head><title>502</title></head><body><hr></body></html>",
    ] {
        assert!(parse(document.as_bytes()).is_err(), "{document}");
    }
    assert!(parse(b"<a>\xff</a>").is_err());
}

proptest::proptest! {
    #[test]
    fn nothing_makes_it_panic(document in "[<>/&;a!?\\[\\]\"= -]{0,60}") {
        let _ = parse(document.as_bytes());
    }
}
