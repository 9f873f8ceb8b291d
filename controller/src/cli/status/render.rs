//! What `ballast status` prints for people. Pure: the same values and time produce the same
//! text.

use jiff::Timestamp;

use super::announcers::{AddressLine, AnnouncerReport, InterfaceLine};
use super::pools::{Assigned, PoolReport, PoolStatus};
use super::report::{Classes, PortLine, Report, ServiceStatus};
use crate::cli::text::{Cell, LONGEST, Look, NOTHING, Table, Tone, age, length, wrap};
use crate::cluster::conditions::rfc3339;
use crate::process::text::{one_line, shortened};
use ballast_crds::PoolCounts;

/// What the output depends on apart from the values.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Where the output goes.
    pub look: Look,
    /// When the cluster was read.
    pub now: Timestamp,
    /// `ballast` or `kubectl ballast`.
    pub program: &'a str,
}

/// The column where the values of a description begin.
const VALUES: usize = 12;

/// One line per Service.
pub fn services(report: &Report, view: View<'_>) -> String {
    if report.services.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "CLASS",
        "ADDRESS",
        "SINCE",
        "STATE",
        "WHY",
    ]);
    for service in &report.services {
        table.row(vec![
            Cell::new(&service.namespace),
            Cell::new(&service.name),
            Cell::new(service.class.as_deref().unwrap_or_default()),
            Cell::new(service.addresses.join(",")),
            Cell::new(since(service.since, view)),
            Cell::new(&service.state).toned(tone(&service.state)),
            Cell::remark(&service.why),
        ]);
    }
    table.render(view.look)
}

/// What to do next, if something is waiting. It goes to standard error, so that standard output
/// has only rows.
pub fn hint(report: &Report, view: View<'_>) -> Option<String> {
    let all = report.services.len();
    let mut waiting = report.services.iter().filter(|one| !one.is_well());
    if let Some(first) = waiting.next() {
        let count = waiting.count() + 1;
        let verb = if count == 1 { "is" } else { "are" };
        return Some(format!(
            "{count} of {all} Services {verb} not ready; details of the first: {} status {} -n {}",
            view.program, first.name, first.namespace
        ));
    }
    match report.unclaimed.as_slice() {
        [] if all == 0 => Some("no Services with a load balancer of Ballast found".to_owned()),
        [] => None,
        [first, more @ ..] => {
            let and = match more.len() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            Some(format!(
                "Service {first}{and} has no class and no address, and no class of Ballast is the default; see: kubectl get lbclass"
            ))
        }
    }
}

/// Notes about draining classes, for standard error.
pub fn drained(classes: &Classes, view: View<'_>) -> Option<String> {
    let names = classes.drained();
    let (noun, verb) = match names.len() {
        0 => return None,
        1 => ("class", "is"),
        _ => ("classes", "are"),
    };
    Some(format!(
        "{noun} {} {verb} draining; to end this: {} teardown --undo --classes {}",
        names.join(", "),
        view.program,
        names.join(",")
    ))
}

/// All details of one Service.
pub fn description(service: &ServiceStatus, view: View<'_>) -> String {
    let mut out = String::new();
    let mut field = |name: &str, value: &str| {
        let room = view
            .look
            .width
            .map_or(usize::MAX, |all| all.saturating_sub(VALUES).max(2 * VALUES));
        let margin = format!("\n{}", " ".repeat(VALUES));
        let value = match shortened(&one_line(value), LONGEST) {
            text if text.is_empty() => NOTHING.to_owned(),
            text => wrap(&text, room).join(&margin),
        };
        out.extend([&format!("{name:VALUES$}"), value.as_str(), "\n"]);
    };
    field(
        "Service",
        &format!("{}/{}", service.namespace, service.name),
    );
    let class = service.class.as_deref().unwrap_or_default();
    match &service.provider {
        Some(provider) => field("Class", &format!("{class} ({provider})")),
        None => field("Class", class),
    }
    field("Address", &service.addresses.join(", "));
    field("State", &state_since(service, view));
    if !service.why.is_empty() {
        field("Why", &service.why);
    }
    if service.ready && !service.is_well() {
        field("", "Traffic still flows with the previous settings.");
    }
    let ports: Vec<String> = service.ports.iter().map(port).collect();
    field("Ports", &ports.join(", "));
    if let Some(policy) = &service.traffic_policy {
        field("Policy", policy);
    }
    out.push_str(&announcements(service, view));
    out.push_str(&conditions(service, view));
    out.push_str(&events(service, view));
    out
}

/// How full the pools are, and which Services have which address.
pub fn pools(report: &PoolReport, view: View<'_>) -> String {
    let mut table = Table::new(&[
        "POOL", "FAMILY", "TOTAL", "USED", "FREE", "NEXT", "STATE", "WHY",
    ]);
    for pool in &report.pools {
        pool_rows(&mut table, pool);
    }
    if table.is_empty() {
        return String::new();
    }
    let mut out = table.render(view.look);
    let mut table = Table::new(&["ADDRESS", "POOL", "USE"]);
    for pool in &report.pools {
        for one in &pool.assigned {
            let cell = Cell::remark(&users(one));
            table.row(vec![Cell::new(&one.address), Cell::new(&pool.name), cell]);
        }
        for one in &pool.resting {
            let left = length(one.until.as_second() - view.now.as_second());
            let text = format!("resting for {left}, until {}", rfc3339(one.until));
            let cell = Cell::remark(&text).toned(Tone::Waiting);
            table.row(vec![Cell::new(&one.address), Cell::new(&pool.name), cell]);
        }
    }
    if !table.is_empty() {
        out.push('\n');
        out.push_str(&table.render(view.look));
    }
    out
}

/// What to do about pools that do not work, or if there are none.
pub fn pools_hint(report: &PoolReport, view: View<'_>) -> Option<String> {
    let all = report.pools.len();
    if all == 0 {
        return Some("no AddressPools found".to_owned());
    }
    let mut idle = report.pools.iter().filter(|pool| !pool.is_well());
    let first = idle.next().filter(|_| all > 1)?;
    let count = idle.count() + 1;
    let verb = if count == 1 { "is" } else { "are" };
    Some(format!(
        "{count} of {all} AddressPools {verb} not ready; details of the first: {} status --pools {}",
        view.program, first.name
    ))
}

/// The announcers, and which node announces each address.
pub fn announcers(report: &AnnouncerReport, view: View<'_>) -> String {
    let mut table = Table::new(&["NODE", "INTERFACES", "ADDRESSES", "STATE", "WHY"]);
    for one in &report.announcers {
        let interfaces: Vec<String> = one.interfaces.iter().map(interface).collect();
        table.row(vec![
            Cell::new(&one.node),
            Cell::new(interfaces.join(",")),
            Cell::new(one.addresses.to_string()),
            Cell::new(&one.state).toned(tone(&one.state)),
            Cell::remark(&one.why),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    let mut out = table.render(view.look);
    let mut table = Table::new(&[
        "ADDRESS",
        "NODE",
        "INTERFACE",
        "MAC",
        "SINCE",
        "EPOCH",
        "NEXT",
        "SERVICE",
        "WHY",
    ]);
    for line in &report.addresses {
        let mut row = address(line, since(line.since, view));
        let services: Vec<String> = line
            .services
            .iter()
            .map(|it| format!("{}/{}", it.namespace, it.name))
            .collect();
        row.insert(row.len() - 1, Cell::new(services.join(",")));
        table.row(row);
    }
    if !table.is_empty() {
        out.push('\n');
        out.push_str(&table.render(view.look));
    }
    out
}

/// What to do about announcers that do not work, and addresses that no node announces.
pub fn announcers_hint(report: &AnnouncerReport, view: View<'_>) -> Option<String> {
    if report.announcers.iter().all(|it| it.state == "NoAnnouncer") {
        return Some(
            "no announcer runs in this cluster; the chart starts them with announcer.enabled=true"
                .to_owned(),
        );
    }
    let mut silent = report.addresses.iter().filter(|it| !it.announced);
    if let Some(first) = silent.next() {
        let count = silent.count() + 1;
        let verb = if count == 1 {
            "address is"
        } else {
            "addresses are"
        };
        return Some(format!(
            "{count} {verb} not announced by any node; the first: {}",
            first.address
        ));
    }
    let mut broken = report.announcers.iter().filter(|it| !it.is_well());
    let first = broken.next()?;
    let count = broken.count() + 1;
    let verb = if count == 1 { "reports" } else { "report" };
    (report.announcers.len() > 1).then(|| {
        format!(
            "{count} of {} nodes {verb} a problem; the first: {} status --announcers {}",
            report.announcers.len(),
            view.program,
            first.node
        )
    })
}

/// The cells of an address; the last one is the remark.
fn address(line: &AddressLine, since: String) -> Vec<Cell> {
    let text = |value: &Option<String>| Cell::new(value.as_deref().unwrap_or_default());
    let node = text(&line.node).toned(if line.announced {
        Tone::Plain
    } else {
        Tone::Bad
    });
    vec![
        Cell::new(&line.address),
        node,
        text(&line.interface),
        text(&line.mac),
        Cell::new(since),
        Cell::new(line.epoch.map(|it| it.to_string()).unwrap_or_default()),
        Cell::new(line.successors.join(",")),
        Cell::remark(&line.why),
    ]
}

/// `eth0`, or `eth1 (unusable)`.
fn interface(line: &InterfaceLine) -> String {
    if line.usable {
        line.name.clone()
    } else {
        format!("{} (unusable)", line.name)
    }
}

fn announcements(service: &ServiceStatus, view: View<'_>) -> String {
    let Some(lines) = service.announcements.as_ref().filter(|it| !it.is_empty()) else {
        return String::new();
    };
    let mut table = Table::new(&[
        "ADDRESS",
        "NODE",
        "INTERFACE",
        "MAC",
        "SINCE",
        "EPOCH",
        "NEXT",
        "WHY",
    ]);
    for line in lines {
        let since = line.since.map_or(NOTHING.to_owned(), |time| {
            format!("{} ({})", rfc3339(time), age(time, view.now))
        });
        table.row(address(line, since));
    }
    format!("\n{}", table.render(uncut(view)))
}

fn pool_rows(table: &mut Table, pool: &PoolStatus) {
    let families = [("IPv4", pool.ipv4, '.'), ("IPv6", pool.ipv6, ':')];
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for (family, counts, sign) in families {
        let Some(counts) = counts else { continue };
        let next = pool.next.iter().find(|address| address.contains(sign));
        let PoolCounts {
            total,
            assigned,
            available,
        } = counts;
        let mut row = vec![Cell::new(&pool.name), Cell::new(family)];
        row.extend([total, assigned, available].map(|number| Cell::new(count(number))));
        row.push(Cell::new(next.map_or("", String::as_str)));
        rows.push(row);
    }
    if rows.is_empty() {
        let mut row = vec![Cell::new(&pool.name)];
        row.resize_with(6, || Cell::new(""));
        rows.push(row);
    }
    for (number, mut row) in rows.into_iter().enumerate() {
        row.push(Cell::new(&pool.state).toned(tone(&pool.state)));
        // A pool has one remark, whatever its number of rows.
        row.push(Cell::remark(if number == 0 { &pool.why } else { "" }));
        table.row(row);
    }
}

/// Numbers end at 2^63 - 1, which means that many or more.
fn count(number: i64) -> String {
    if number == i64::MAX {
        "2^63+".to_owned()
    } else {
        number.to_string()
    }
}

fn users(one: &Assigned) -> String {
    let names: Vec<String> = one
        .services
        .iter()
        .map(|user| format!("{}/{}", user.namespace, user.name))
        .collect();
    names.join(", ")
}

fn tone(state: &str) -> Tone {
    match state {
        "Ready" => Tone::Good,
        "Pending" | "Provisioning" | "Releasing" | "Throttled" | "NotAnnounced" | "Draining"
        | "NoAnnouncer" => Tone::Waiting,
        _ => Tone::Bad,
    }
}

fn since(time: Option<Timestamp>, view: View<'_>) -> String {
    time.map_or(NOTHING.to_owned(), |time| age(time, view.now))
}

fn state_since(service: &ServiceStatus, view: View<'_>) -> String {
    match service.since {
        Some(time) => format!(
            "{}, since {} ({})",
            service.state,
            rfc3339(time),
            age(time, view.now)
        ),
        None => service.state.clone(),
    }
}

fn port(port: &PortLine) -> String {
    let name = port.name.as_deref().map(|name| format!("{name} "));
    let node_port = port.node_port.map(|it| format!(" (node port {it})"));
    let error = port.error.as_deref().map(|error| format!(" ({error})"));
    let [name, node_port, error] = [name, node_port, error].map(Option::unwrap_or_default);
    format!("{name}{}/{}{node_port}{error}", port.port, port.protocol)
}

fn conditions(service: &ServiceStatus, view: View<'_>) -> String {
    if service.conditions.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for one in &service.conditions {
        let since = format!("{} ({})", rfc3339(one.since), age(one.since, view.now));
        table.row(vec![
            Cell::new(&one.r#type),
            Cell::new(&one.status),
            Cell::new(&one.reason),
            Cell::new(since),
            Cell::remark(&one.message),
        ]);
    }
    format!("\n{}", table.render(uncut(view)))
}

fn events(service: &ServiceStatus, view: View<'_>) -> String {
    let Some(events) = &service.events else {
        return String::new();
    };
    if events.is_empty() {
        return "\nNo events.\n".to_owned();
    }
    let mut table = Table::new(&["EVENT", "REASON", "LAST", "TIMES", "MESSAGE"]);
    for one in events {
        table.row(vec![
            Cell::new(&one.r#type),
            Cell::new(&one.reason),
            Cell::new(since(one.time, view)),
            Cell::new(one.count.to_string()),
            Cell::remark(&one.message),
        ]);
    }
    format!("\n{}", table.render(uncut(view)))
}

/// A description shows the whole text.
const fn uncut(view: View<'_>) -> Look {
    Look {
        whole: true,
        ..view.look
    }
}

#[cfg(test)]
mod tests;
