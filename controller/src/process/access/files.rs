//! The files of a kubeconfig: which ones there are, merged as kubectl merges them, and which
//! file defines an entry.
//!
//! kube's own reader names only the list of files if one of them is invalid, requires that
//! each of them exists, and treats an empty string as a value.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use kube::config::{Kubeconfig, KubeconfigError};
use regex::Regex;
use serde_json::Value;

use super::AccessError;
use crate::process::text::decode;

/// The maximum size of a file in bytes.
const LARGEST: u64 = 16 << 20;

/// What was read.
#[derive(Debug)]
pub(super) struct Files {
    /// All files as one.
    pub(super) merged: Kubeconfig,
    /// Each file, in order.
    read: Vec<(PathBuf, Kubeconfig)>,
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// One file, which must exist.
    File(PathBuf),
    /// The files of `KUBECONFIG`, or the default. As in kubectl, they need not exist.
    Any(Vec<PathBuf>),
}

// === impl Chosen ===

impl Chosen {
    /// The user's choice, `KUBECONFIG`, or `~/.kube/config`.
    pub(super) fn of_process(file: Option<&Path>) -> Self {
        if let Some(file) = file {
            return Self::File(file.to_owned());
        }
        let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let listed: Vec<PathBuf> = std::env::split_paths(&listed)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        if listed.is_empty() {
            let home = std::env::home_dir();
            Self::Any(home.map(|it| it.join(".kube/config")).into_iter().collect())
        } else {
            Self::Any(listed)
        }
    }
}

// === impl Files ===

impl Files {
    /// Reads the files that exist.
    pub(super) fn read(chosen: &Chosen) -> Result<Self, AccessError> {
        let (paths, required) = match chosen {
            Chosen::File(path) => (std::slice::from_ref(path), true),
            Chosen::Any(paths) => (paths.as_slice(), false),
        };
        let mut all = Vec::new();
        for path in paths {
            match text(path) {
                Ok(text) => all.push((path.clone(), parsed(path, &text)?)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {}
                Err(error) => return Err(unreadable(path, error)),
            }
        }
        if all.is_empty() {
            return Err(AccessError::Missing(joined(paths)));
        }
        Self::of(all)
    }

    /// Merges what the files contain: the first one that sets a value wins.
    pub(super) fn of(read: Vec<(PathBuf, Kubeconfig)>) -> Result<Self, AccessError> {
        let mut merged = Kubeconfig::default();
        for (path, one) in &read {
            let next = merged.merge(one.clone());
            merged = next.map_err(|error| unreadable(path, error))?;
        }
        Ok(Self { merged, read })
    }

    /// The first file that has an entry; all files if none has it.
    pub(super) fn with(&self, has: impl Fn(&Kubeconfig) -> bool) -> String {
        let found = self.read.iter().find(|(_, one)| has(one));
        match found {
            Some((path, _)) => path.display().to_string(),
            None => joined(self.read.iter().map(|(path, _)| path)),
        }
    }
}

fn joined<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> String {
    let names = paths.into_iter().map(|path| path.display().to_string());
    names.collect::<Vec<_>>().join(", ")
}

fn unreadable(path: &Path, error: impl Into<tower::BoxError>) -> AccessError {
    AccessError::Read {
        file: path.display().to_string(),
        source: error.into(),
    }
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The content of a file. Relative paths in it start at its folder.
fn parsed(path: &Path, text: &str) -> Result<Kubeconfig, AccessError> {
    let kubeconfig = Kubeconfig::from_yaml(text).map_err(|error| match error {
        KubeconfigError::Parse(error) => unreadable(path, without_values(&error)),
        error => unreadable(path, error),
    })?;
    let mut kubeconfig = without_empty(&kubeconfig).map_err(|error| unreadable(path, error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    absolute(&mut kubeconfig, folder);
    Ok(kubeconfig)
}

/// The text of the error without the lines and values that it quotes: they can be tokens.
fn without_values(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    // A variant that is unknown is a value, too; other words in backticks are names of fields.
    let quoted = Regex::new(r#" "(?:[^"\\]|\\.)*"|( variant) `[^`]*`"#);
    quoted.map_or_else(
        |_| "invalid YAML".to_owned(),
        |quoted| quoted.replace_all(&text, "$1").into_owned(),
    )
}

/// As in kubectl, an empty string means that a field is not set.
fn without_empty(kubeconfig: &Kubeconfig) -> Result<Kubeconfig, serde_json::Error> {
    let mut value = serde_json::to_value(kubeconfig)?;
    let is_set = |_: &String, value: &mut Value| value != "";
    if let Some(fields) = value.as_object_mut() {
        fields.retain(is_set);
    }
    for (list, entry) in [
        ("clusters", "cluster"),
        ("users", "user"),
        ("contexts", "context"),
    ] {
        for named in value[list].as_array_mut().into_iter().flatten() {
            if let Some(fields) = named[entry].as_object_mut() {
                // The name of a context's cluster is required, also if it is empty.
                fields.retain(|key, value| key == "cluster" || is_set(key, value));
            }
        }
    }
    serde_json::from_value(value)
}

fn absolute(kubeconfig: &mut Kubeconfig, folder: &Path) {
    let resolve = |path: &mut Option<String>| {
        if let Some(path) = path {
            *path = folder.join(&*path).display().to_string();
        }
    };
    let clusters = kubeconfig.clusters.iter_mut();
    for cluster in clusters.filter_map(|it| it.cluster.as_mut()) {
        resolve(&mut cluster.certificate_authority);
    }
    let users = kubeconfig.auth_infos.iter_mut();
    for user in users.filter_map(|it| it.auth_info.as_mut()) {
        resolve(&mut user.client_certificate);
        resolve(&mut user.client_key);
        resolve(&mut user.token_file);
        // A name without a slash is looked up in PATH.
        let plugin = user.exec.as_mut().filter(|exec| {
            let command = exec.command.as_deref();
            command.is_some_and(|command| command.contains('/'))
        });
        if let Some(plugin) = plugin {
            resolve(&mut plugin.command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::causes::causes;

    const ONE: &str = "
current-context: ''
clusters:
- {name: lab, cluster: {server: 'https://one:6443', certificate-authority: ca.crt, proxy-url: ''}}
";
    const TWO: &str = "
current-context: here
clusters:
- {name: lab, cluster: {server: 'https://two:6443'}}
contexts:
- {name: here, context: {cluster: lab, user: me, namespace: ''}}
users:
- name: me
  user: {token: '', tokenFile: /run/token, client-key: keys/me, exec: {command: ./plugin, apiVersion: v1}}
";

    fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn several_files_are_merged_as_kubectl_does() {
        let folder = tempfile::tempdir().unwrap();
        let one = write(folder.path(), "one", ONE);
        let two = write(folder.path(), "two", TWO);
        let missing = folder.path().join("missing");
        let chosen = Chosen::Any(vec![missing, one.clone(), two.clone()]);
        let files = Files::read(&chosen).unwrap();
        // An empty string sets nothing.
        assert_eq!(files.merged.current_context.as_deref(), Some("here"));
        let cluster = files.merged.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://one:6443"));
        assert_eq!(cluster.proxy_url, None);
        let inside = |name: &str| Some(folder.path().join(name).display().to_string());
        assert_eq!(cluster.certificate_authority, inside("ca.crt"));
        let context = files.merged.contexts[0].context.as_ref().unwrap();
        assert_eq!(context.namespace, None);
        let user = files.merged.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(user.token.is_none());
        assert_eq!(user.token_file.as_deref(), Some("/run/token"));
        assert_eq!(user.client_key, inside("keys/me"));
        assert_eq!(user.exec.as_ref().unwrap().command, inside("./plugin"));

        let with = |has: &dyn Fn(&Kubeconfig) -> bool| files.with(has);
        assert_eq!(
            with(&|it| !it.clusters.is_empty()),
            one.display().to_string()
        );
        assert_eq!(
            with(&|it| !it.contexts.is_empty()),
            two.display().to_string()
        );
        let both = format!("{}, {}", one.display(), two.display());
        assert_eq!(with(&|_| false), both);
    }

    #[test]
    fn the_file_that_is_broken_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let good = write(folder.path(), "good", TWO);
        for (name, content) in [
            (
                "broken",
                &b"users:\n- name: me\n  user: {token: secret-1}\n bad: [\n"[..],
            ),
            ("half-a-character", b"\xff\xfea\0b"),
            ("binary", b"\x7fELF\xff"),
            ("a-list", b"- secret-1"),
            ("other", b"users: secret-1"),
            ("flat", b"users: [{name: me, user: {exec: secret-1}}]"),
            (
                "args",
                b"users: [{name: me, user: {exec: {args: 'a secret-1\"b'}}}]",
            ),
            (
                "mode",
                b"users: [{name: me, user: {exec: {interactiveMode: secret-1}}}]",
            ),
            (
                "switch",
                b"clusters: [{name: me, cluster: {insecure-skip-tls-verify: secret-1}}]",
            ),
            (
                "kind",
                b"kind: Secret\ndata: {a: secret-1}\nusers: {token: secret-1}",
            ),
        ] {
            let broken = write(folder.path(), name, content);
            for chosen in [
                Chosen::File(broken.clone()),
                Chosen::Any(vec![good.clone(), broken.clone()]),
            ] {
                let told = causes(&Files::read(&chosen).unwrap_err());
                let expected = format!("cannot read the kubeconfig {}: ", broken.display());
                assert!(told.starts_with(&expected), "{told}");
                assert_eq!(told.matches(name).count(), 1, "{told}");
                assert!(!told.contains("secret-1"), "{told}");
            }
        }
        // A folder, and nothing.
        let told = causes(&Files::read(&Chosen::Any(vec![folder.path().into()])).unwrap_err());
        assert!(told.contains("directory"), "{told}");
        let missing = folder.path().join("missing");
        let told = causes(&Files::read(&Chosen::File(missing.clone())).unwrap_err());
        assert!(
            told.ends_with("missing: No such file or directory (os error 2)"),
            "{told}"
        );
        let none = Files::read(&Chosen::Any(vec![missing])).unwrap_err();
        assert!(matches!(none, AccessError::Missing(_)), "{none}");
    }
}
