//! Every command line of `ballast` in `examples/` and in `docs/no-orphans.md` is valid.

use std::path::{Path, PathBuf};

use clap::Parser as _;

use super::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The command lines in a text: where a shell would read one, not in sentences.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let mut found: Vec<String> = joined.lines().filter_map(pod).collect();
    for line in joined.lines() {
        let mut from = 0;
        while let Some(at) = line[from..].find("ballast ") {
            let (before, rest) = (&line[..from + at], &line[from + at..]);
            from += at + "ballast ".len();
            if let Some(quote) = command_begins(before) {
                let words: Vec<&str> = until(rest, quote).split_whitespace().collect();
                found.push(words.join(" "));
            }
        }
    }
    found
}

/// Whether a command can begin after this text, and what ends it: the line, or a quote.
fn command_begins(before: &str) -> Option<char> {
    let trimmed = before.rsplit("&&").next().unwrap_or(before).trim();
    // Comments: a sentence has one space after the mark, a command more.
    let comment = before.trim_start().strip_prefix('#');
    let indented = trimmed == "#" && comment.is_some_and(|spaces| spaces.len() >= 3);
    let begins = ["- run:", "run:"].contains(&trimmed)
        || trimmed.is_empty()
        || indented
        || trimmed.starts_with("KUBECONFIG=");
    if begins {
        return Some('\n');
    }
    // `command = "ballast …"`, and `ballast …` in a sentence.
    let quote = before.chars().last()?;
    let code = quote == '`' || (quote == '"' && trimmed.trim_end_matches('"').ends_with("= "));
    code.then_some(quote)
}

/// A command up to its end: a quote, or what separates commands of a shell.
fn until(rest: &str, quote: char) -> &str {
    let (mut open, mut end) = (None, rest.len());
    for (at, c) in rest.char_indices() {
        match open {
            _ if c == quote => {
                end = at;
                break;
            }
            Some(mark) if c == mark => open = None,
            None if c == '"' || c == '\'' => open = Some(c),
            None if ";|&>#".contains(c) => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    &rest[..end]
}

/// The arguments of a container: `args: [teardown, --wait]`.
fn pod(line: &str) -> Option<String> {
    let list = line.trim().strip_prefix("args: [")?.strip_suffix(']')?;
    Some(format!("ballast {}", list.replace(", ", " ")))
}

/// The words of a command, as a shell splits them. `${NAME:-DEFAULT}` is its default; other variables
/// stay as they are.
fn words(command: &str) -> Vec<String> {
    let command = match command.split_once("${") {
        Some((before, rest)) => {
            let (variable, after) = rest.split_once('}').unwrap_or((rest, ""));
            let default = variable.split_once(":-").map_or("", |(_, default)| default);
            return words(&format!("{before}{default}{after}"));
        }
        None => command,
    };
    let (mut words, mut word, mut open) = (vec![], None::<String>, None);
    for c in command.chars() {
        match open {
            Some(mark) if c == mark => open = None,
            None if c == '"' || c == '\'' => {
                open = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_in_the_examples_is_valid() {
    let mut paths = vec![root().join("docs/no-orphans.md")];
    files(&root().join("examples"), &mut paths);
    assert!(paths.len() >= 8, "{paths:?}");
    let mut wrong = vec![];
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let commands = commands(&text);
        assert!(!commands.is_empty(), "no command in {path:?}");
        for command in commands {
            println!("{}: {command}", path.display());
            if let Err(error) = Cli::try_parse_from(words(&command)) {
                wrong.push(format!("{}: {command}\n{error}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_are_found_where_a_shell_reads_them() {
    for (text, expected) in [
        ("ballast status -n 'a b'", &["ballast status -n 'a b'"][..]),
        ("#   ballast teardown --wait", &["ballast teardown --wait"]),
        ("# ballast teardown waits.", &[]),
        (
            "Then `ballast orphans -o json` lists.",
            &["ballast orphans -o json"],
        ),
        (
            "x && KUBECONFIG=$k ballast teardown \\\n  --wait; y",
            &["ballast teardown --wait"],
        ),
        (
            "KUBECONFIG=$k ballast teardown --wait",
            &["ballast teardown --wait"],
        ),
        (
            "command = \"ballast teardown --reason 'a; b'\"",
            &["ballast teardown --reason 'a; b'"],
        ),
        (
            "  args: [orphans, --compare]",
            &["ballast orphans --compare"],
        ),
        ("- run: ballast orphans | jq .", &["ballast orphans"]),
        ("print(f\"ballast teardown ended with {status}\")", &[]),
        ("kubectl -n ballast-system logs", &[]),
    ] {
        assert_eq!(commands(text), expected, "{text}");
    }
    assert_eq!(words("a 'b c' \"\" d=\"e f\""), ["a", "b c", "", "d=e f"]);
    assert_eq!(words("a \"${B:-5m}\" ${C}d"), ["a", "5m", "d"]);
}
