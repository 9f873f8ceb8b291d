//! The images that every node has: pause, agnhost, and the name server.
//!
//! They have their upstream names, so that manifests for real clusters run unchanged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::binaries::Binaries;
use crate::image::{Entry, Image, hex};
use crate::progress::Progress;

/// The image of a pod's own container.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.1";
/// The image of test pods. It also has `sh`, `curl`, `nc` and `wget` if Debian's
/// busybox-static, curl, netcat-openbsd and wget are installed.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// The image of the name server.
pub const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.14.6";

/// Increase it when the content of the images changes.
const RECIPE: u32 = 4;

/// The path of Debian's busybox without shared libraries.
const BUSYBOX: &str = "/bin/busybox";

/// Programs that the upstream suite calls in test pods: their paths in Debian, and in the
/// image. They have no static packages, so their libraries are included. Busybox's own `nc`
/// lacks flags that the suite uses, its static `wget` fails on a bare address, and its `sh`
/// prefers both to the programs in PATH.
const PROGRAMS: [(&str, &str); 4] = [
    ("/bin/dash", "bin/sh"),
    ("/usr/bin/curl", "usr/bin/curl"),
    ("/bin/nc.openbsd", "bin/nc"),
    ("/usr/bin/wget", "bin/wget"),
];

/// Programs that test pods call by name.
const APPLETS: [&str; 28] = [
    "sh", "ash", "cat", "cp", "cut", "date", "echo", "env", "false", "find", "grep", "head",
    "hostname", "id", "ip", "ls", "mkdir", "nc", "nslookup", "ping", "printf", "ps", "rm", "seq",
    "sleep", "tail", "true", "wget",
];

/// An image with a program of this machine and its libraries, for tests of the program's
/// environment. They run the present build, without a release build.
pub fn with_libraries(reference: &str, programs: &[PathBuf], user: &str) -> Image {
    let mut entries = library_entries(programs);
    entries.extend(program_entries(programs));
    let first = programs
        .first()
        .map(|program| format!("/{}", name(program)));
    Image {
        reference: reference.to_owned(),
        entrypoint: first.into_iter().collect(),
        user: user.to_owned(),
        entries,
        ..Image::default()
    }
}

/// The programs, in the image's root.
pub(crate) fn program_entries(programs: &[PathBuf]) -> Vec<Entry> {
    let entry = |program: &PathBuf| Entry::Program(name(program), program.clone());
    programs.iter().map(entry).collect()
}

fn name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The libraries that programs of this machine load, at the paths where they look for them.
pub(crate) fn library_entries(programs: &[PathBuf]) -> Vec<Entry> {
    let all: BTreeSet<PathBuf> = programs
        .iter()
        .flat_map(|program| libraries(&program.to_string_lossy()))
        .collect();
    all.into_iter()
        .map(|library| {
            let place = library.to_string_lossy().trim_start_matches('/').to_owned();
            Entry::Program(place, library)
        })
        .collect()
}

/// The archives of a cache, by the name of their image.
pub(crate) fn archives(cache: &Binaries) -> Result<Vec<(&'static str, PathBuf)>> {
    let dir = cache.dir().join("images").join(variant()?);
    Ok([PAUSE, COREDNS, AGNHOST]
        .map(|name| (name, dir.join(format!("{}.tar", short(name)))))
        .to_vec())
}

/// Writes the archives that are missing.
pub(crate) fn ensure(cache: &Binaries, progress: Progress) -> Result<()> {
    for (name, path) in archives(cache)? {
        if path.exists() {
            continue;
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let writing = || format!("writing the image {name}");
        progress.while_working(writing, || image(cache, name).write(&path))?;
        progress.say(format!("wrote the image {name}"));
    }
    Ok(())
}

/// `agnhost` of `registry/path/agnhost:1`.
pub(crate) fn short(reference: &str) -> &str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.split(':').next().unwrap_or(last)
}

/// The images also contain programs of the machine; other versions of those need another
/// folder.
fn variant() -> Result<String> {
    let mut hash = Sha256::new();
    for (path, _) in tools() {
        let file = std::fs::metadata(&path)?;
        hash.update(format!(
            "{} {} {:?}\n",
            path.display(),
            file.len(),
            file.modified()?
        ));
    }
    Ok(format!("{RECIPE}-{}", &hex(&hash.finalize())[..8]))
}

/// Files of the machine for agnhost's image, with their paths there and their libraries, if
/// they are installed.
fn tools() -> Vec<(PathBuf, String)> {
    let mut files = std::collections::BTreeMap::new();
    if Path::new("/usr/share/doc/busybox-static").exists() && Path::new(BUSYBOX).exists() {
        files.insert(PathBuf::from(BUSYBOX), "bin/busybox".to_owned());
    }
    for (program, place) in PROGRAMS {
        if Path::new(program).exists() {
            files.insert(program.into(), place.to_owned());
            files.extend(libraries(program).into_iter().map(|library| {
                let place = library.to_string_lossy().trim_start_matches('/').to_owned();
                (library, place)
            }));
        }
    }
    files.into_iter().collect()
}

/// The libraries of a program, by the paths where it looks for them.
fn libraries(program: &str) -> Vec<PathBuf> {
    let Ok(output) = Command::new("ldd").arg(program).output() else {
        return vec![];
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = |line: &str| {
        line.split_ascii_whitespace()
            .find(|word| word.starts_with('/'))
            .map(PathBuf::from)
    };
    let mut found: Vec<PathBuf> = text.lines().filter_map(path).collect();
    found.sort();
    found
}

fn image(cache: &Binaries, reference: &str) -> Image {
    let program = short(reference);
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    let mut entries = vec![
        Entry::Folder("bin", 0o755),
        Entry::Folder("etc", 0o755),
        Entry::Folder("root", 0o700),
        Entry::Folder("tmp", 0o1777),
        Entry::Folder("usr", 0o755),
        Entry::Folder("usr/bin", 0o755),
        Entry::Folder("var", 0o755),
        Entry::Text("etc/passwd", passwd.to_owned()),
        Entry::Text("etc/group", "root:x:0:\nnogroup:x:65534:\n".to_owned()),
        Entry::Text("etc/nsswitch.conf", "hosts: files dns\n".to_owned()),
    ];
    let tools = if program == "agnhost" {
        tools()
    } else {
        vec![]
    };
    if tools.iter().any(|(_, place)| place == "bin/busybox") {
        let links = APPLETS.map(|name| format!("bin/{name}"));
        let real = |link: &String| tools.iter().any(|(_, place)| place == link);
        let links = links.into_iter().filter(|link| !real(link));
        entries.extend(links.map(|link| Entry::Link(link, "/bin/busybox".to_owned())));
    }
    for (tool, place) in tools {
        entries.push(Entry::Program(place, tool));
    }
    entries.push(Entry::Program(program.to_owned(), cache.program(program)));
    Image {
        reference: reference.to_owned(),
        entrypoint: vec![format!("/{program}")],
        user: if program == "pause" {
            "65535:65535".to_owned()
        } else {
            String::new()
        },
        entries,
        ..Image::default()
    }
}
