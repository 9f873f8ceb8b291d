//! What `ballast migrate lbc` prints for people. Pure.

use std::fmt::Write as _;

use anyhow::Result;
use ballast_aws::annotations::PREFIX;

use super::balancer::Balancer;
use super::becomes::{Becomes, Setting, Verdict};
use super::manifest;
use crate::cli::text::{Cell, Look, Table, Tone, quote};

const NEXT: &str = "Next, one Service after the other (docs/aws-migrate.md has the details):\n";
const NO_EQUAL: &str = "Remove or replace what has no equal, or leave the Service where it is";
const DIFFERS: &str = "Set what shall not differ, in the class or in annotations";
const TTL: &str =
    "Lower the TTL of the Service's DNS records to a minute, and wait for as long as it was before";
const SECOND: &str = "Create a second Service beside the first one, because Kubernetes does not permit another class on a Service. It gets a load balancer of its own, with another name";
const DNS: &str = "Try that name, then change the DNS records to it. The first Service still serves whoever knows the former name";
const DELETE: &str = "When the former load balancer has no flows any more (CloudWatch: ActiveFlowCount), and no program in the cluster uses the name of the first Service, delete it";

/// How the user called the command, to repeat it.
#[derive(Clone, Debug)]
pub struct Called {
    /// `ballast`, or `kubectl ballast`.
    pub program: &'static str,
    /// The flags that say what is read, such as `-f FILE`.
    pub flags: Vec<String>,
}

/// What becomes of each Service, what changes, and what to do.
pub fn text(all: &[Becomes], called: &Called, look: Look) -> String {
    let mut out = services(all, look);
    out.push('\n');
    out.push_str(&settings(all, look));
    out.push('\n');
    out.push_str(&next(all, called));
    out
}

/// The second Services, for `kubectl apply -f -`.
pub fn manifests(all: &[Becomes]) -> Result<String> {
    let mut out = String::new();
    for second in all.iter().filter_map(|one| one.second.as_ref()) {
        out.push_str("---\n");
        out.push_str(&ballast_crds::to_yaml(second)?);
    }
    Ok(out)
}

fn services(all: &[Becomes], look: Look) -> String {
    let mut table = Table::new(&["NAMESPACE", "NAME", "FROM", "RESULT", "BECOMES"]);
    for one in all {
        let becomes = one.becomes.as_ref().map(Balancer::text);
        table.row(vec![
            Cell::new(&one.namespace),
            Cell::new(&one.name),
            Cell::new(one.from.as_str()),
            Cell::new(one.result.as_str()).toned(tone(one.result)),
            Cell::new(becomes.unwrap_or_default()),
        ]);
    }
    table.render(look)
}

fn settings(all: &[Becomes], look: Look) -> String {
    let mut table = Table::new(&["SERVICE", "SETTING", "RESULT", "WHY"]);
    for one in all {
        let title = title(one);
        let changes = one.settings.iter();
        for setting in changes.filter(|it| it.result > Verdict::Same) {
            table.row(vec![
                Cell::new(&title),
                Cell::new(short(&setting.setting)),
                Cell::new(setting.result.as_str()).toned(tone(setting.result)),
                Cell::remark(why(setting)),
            ]);
        }
        let same = one.settings.iter();
        let same = same.filter(|it| it.result == Verdict::Same);
        let same: Vec<&str> = same.map(|it| short(&it.setting)).collect();
        if !same.is_empty() {
            table.row(vec![
                Cell::new(&title),
                Cell::new("annotations"),
                Cell::new(Verdict::Same.as_str()).toned(Tone::Good),
                Cell::remark(&same.join(", ")),
            ]);
        }
    }
    table.render(look)
}

/// The steps with a second Service. Those that take the load balancer over are in docs/aws-migrate.md.
fn next(all: &[Becomes], called: &Called) -> String {
    let ready = all.iter().find(|one| one.second.is_some());
    let commands = ready.map(|one| commands(one, called));
    let mut steps: Vec<(&str, Vec<String>)> = Vec::new();
    if all.iter().any(|one| one.result == Verdict::NoEqual) {
        steps.push((NO_EQUAL, Vec::new()));
    }
    if all.iter().any(Becomes::differs) {
        steps.push((DIFFERS, Vec::new()));
    }
    let (create, delete) = commands.unwrap_or_default();
    steps.extend([
        (TTL, Vec::new()),
        (SECOND, create),
        (DNS, Vec::new()),
        (DELETE, delete),
    ]);
    let mut out = String::from(NEXT);
    for (number, (text, commands)) in (1..).zip(steps) {
        let end = if commands.is_empty() { "." } else { ":" };
        let _ = writeln!(out, "  {number}. {text}{end}");
        for command in commands {
            let _ = writeln!(out, "       {command}");
        }
    }
    out
}

/// Creates the second Service and waits for it; deletes the first one.
fn commands(one: &Becomes, called: &Called) -> (Vec<String>, Vec<String>) {
    let namespace = match one.namespace.as_str() {
        "" => String::new(),
        namespace => format!(" -n {}", quote(namespace)),
    };
    let flags: Vec<String> = called.flags.iter().map(|it| quote(it)).collect();
    let flags = match flags.join(" ").as_str() {
        "" => String::new(),
        flags => format!(" {flags}"),
    };
    let name = quote(&one.name);
    let second = quote(&manifest::name(&one.name));
    (
        vec![
            format!(
                "{} migrate lbc {name}{namespace}{flags} --manifests | kubectl apply{namespace} -f -",
                called.program
            ),
            format!(
                "kubectl wait --for=condition=ballast.dev/Programmed service/{second}{namespace} --timeout=10m"
            ),
        ],
        vec![format!("kubectl delete service {name}{namespace}")],
    )
}

fn title(one: &Becomes) -> String {
    match one.namespace.as_str() {
        "" => one.name.clone(),
        namespace => format!("{namespace}/{}", one.name),
    }
}

/// The prefix of annotations is the same in each line.
fn short(setting: &str) -> &str {
    setting.strip_prefix(PREFIX).unwrap_or(setting)
}

/// The setting is in another column.
fn why(setting: &Setting) -> &str {
    let why = setting.why.as_str();
    let rest = why.strip_prefix("annotation ").unwrap_or(why);
    let rest = rest.strip_prefix(setting.setting.as_str());
    let rest = rest.filter(|_| !setting.setting.is_empty());
    rest.map_or(why, |rest| rest.trim_start_matches([':', ' ']))
}

const fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Same => Tone::Good,
        Verdict::Differs => Tone::Waiting,
        Verdict::NoEqual => Tone::Bad,
    }
}
