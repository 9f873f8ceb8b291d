//! Chooses the proxy to the API server. Pure.
//!
//! The rules are those of kubectl. `proxy-url` of the kubeconfig counts for every request.
//! Without it the environment decides: `HTTPS_PROXY` for an `https` server, `HTTP_PROXY` for
//! an `http` one, except for this machine and for what `NO_PROXY` names. Variables in lower
//! case count if those in upper case are not set.

use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;

use crate::process::text;

/// SOCKS has no default in a URL; this is the registered port (RFC 1928).
const SOCKS_PORT: u16 = 1080;

/// The environment variables that decide, if they are set and not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `HTTPS_PROXY`
    pub https_proxy: Option<String>,
    /// `HTTP_PROXY`
    pub http_proxy: Option<String>,
    /// `NO_PROXY`
    pub no_proxy: Option<String>,
}

/// A proxy that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not a URL of a supported kind.
    #[error(
        "{setting} is not the URL of a proxy: {url:?}; use http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
    )]
    Invalid {
        /// Where the proxy is set.
        setting: &'static str,
        /// The value without user name and password.
        url: String,
    },
    /// The login contains a character that ends the host in a URL.
    #[error(
        "{setting} has a login with an unescaped /, ? or # for the proxy {url:?}; write %2F, %3F or %23 instead"
    )]
    Password {
        /// Where the proxy is set.
        setting: &'static str,
        /// The value without user name and password.
        url: String,
    },
    /// The client library cannot log in at a SOCKS proxy.
    #[error(
        "{setting} is {url} with a user name; a login is supported for HTTP and HTTPS proxies only: use one of these, or a SOCKS proxy without a login"
    )]
    SocksLogin {
        /// Where the proxy is set.
        setting: &'static str,
        /// The value without user name and password.
        url: String,
    },
}

/// The proxy for requests to `server`, if any. `configured` is `proxy-url` of the kubeconfig.
pub fn proxy(
    server: &Uri,
    configured: Option<&str>,
    environment: &Environment,
) -> Result<Option<Uri>, ProxyError> {
    if let Some(url) = configured.filter(|url| !url.is_empty()) {
        return parse("proxy-url in the kubeconfig", url).map(Some);
    }
    let (setting, url) = match server.scheme_str() {
        Some("http") => ("HTTP_PROXY", &environment.http_proxy),
        _ => ("HTTPS_PROXY", &environment.https_proxy),
    };
    let exceptions = environment.no_proxy.as_deref().unwrap_or_default();
    match url {
        Some(url) if !is_local(server) && !is_exempt(server, exceptions) => {
            parse(setting, url).map(Some)
        }
        _ => Ok(None),
    }
}

/// The URL of a proxy without the user name and password.
pub fn redacted(proxy: &Uri) -> String {
    let scheme = proxy.scheme_str().unwrap_or("http");
    let authority = proxy.authority().map_or("", |it| it.as_str());
    let place = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    format!("{scheme}://{place}")
}

/// What a user wrote, without everything that may be a user name or a password.
pub(super) fn without_login(text: &str) -> String {
    // A password can contain "://", too.
    let plain = |scheme: &str| scheme.bytes().all(|it| it.is_ascii_alphanumeric());
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if plain(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), text),
    };
    let place = rest.rsplit_once('@').map_or(rest, |(_, it)| it);
    text::value(&format!("{scheme}{place}"))
}

/// Whether a URL with this authority has no port or a valid one. A port that is not a number
/// would silently become the default.
pub(super) fn is_port_valid(authority: &str) -> bool {
    let place = authority.rsplit('@').next().unwrap_or_default();
    let port = place.rsplit(']').next().unwrap_or_default();
    let port = port.rsplit_once(':').map_or("", |(_, port)| port);
    port.is_empty() || port.parse::<u16>().is_ok_and(|it| it > 0)
}

fn parse(setting: &'static str, url: &str) -> Result<Uri, ProxyError> {
    let url = url.trim();
    let invalid = || ProxyError::Invalid {
        setting,
        url: without_login(url),
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // In a URL, a password writes these characters as %2F, %3F and %23. Without that, the host
    // would be a part of the login.
    if rest[authority.len()..].contains('@') {
        return Err(ProxyError::Password {
            setting,
            url: without_login(url),
        });
    }
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => "http",
        "https" => "https",
        // The proxy resolves names either way.
        "socks5" | "socks5h" => "socks5",
        _ => return Err(invalid()),
    };
    // The last @ ends the login; kube would end it at the first one.
    let authority = match authority.rsplit_once('@') {
        Some((login, place)) => format!("{}@{place}", login.replace('@', "%40")),
        None => authority.to_owned(),
    };
    let parsed: Uri = format!("{scheme}://{authority}/")
        .parse()
        .map_err(|_| invalid())?;
    if parsed.host().is_none_or(str::is_empty) || !is_port_valid(&authority) {
        return Err(invalid());
    }
    if scheme != "socks5" {
        return Ok(parsed);
    }
    if authority.contains('@') {
        return Err(ProxyError::SocksLogin {
            setting,
            url: without_login(url),
        });
    }
    match parsed.port() {
        Some(_) => Ok(parsed),
        None => format!("{scheme}://{authority}:{SOCKS_PORT}/")
            .parse()
            .map_err(|_| invalid()),
    }
}

/// Whether the host is this machine. No proxy of the environment is used for it; a local kind
/// cluster is an example.
fn is_local(server: &Uri) -> bool {
    let name = host(server);
    let loopback = name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    name == "localhost" || loopback
}

/// Whether an entry of `NO_PROXY` matches: `*`, an address, a CIDR, a host name with its
/// subdomains, `.DOMAIN` or `*.DOMAIN` for subdomains only; any but a CIDR with `:PORT`.
/// Invalid entries match nothing.
fn is_exempt(server: &Uri, exceptions: &str) -> bool {
    let (name, port) = (host(server), port(server));
    let entries = exceptions.split(|c: char| c == ',' || c.is_whitespace());
    let mut entries = entries.filter(|entry| !entry.is_empty());
    entries.any(|entry| matches(&entry.to_ascii_lowercase(), &name, port))
}

fn matches(entry: &str, name: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let address = name.parse::<IpAddr>().ok();
    if let (Ok(net), Some(address)) = (entry.parse::<IpNet>(), address) {
        return net.contains(&address);
    }
    let (entry, only) = with_port(entry);
    if only.is_some_and(|only| only != port) {
        return false;
    }
    match (entry.parse::<IpAddr>(), address) {
        (Ok(entry), Some(address)) => entry == address,
        (Err(_), None) => is_within(entry.trim_end_matches('.'), name),
        _ => false,
    }
}

/// Splits `HOST:PORT`, `[ADDRESS]:PORT`, `[ADDRESS]`, or a host without a port.
fn with_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((address, rest)) = entry.strip_prefix('[').and_then(|it| it.split_once(']')) {
        return (
            address,
            rest.strip_prefix(':').and_then(|it| it.parse().ok()),
        );
    }
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

fn is_within(domain: &str, name: &str) -> bool {
    let domain = domain.strip_prefix('*').unwrap_or(domain);
    let (suffix, itself) = match domain.strip_prefix('.') {
        Some(suffix) => (suffix, false),
        None => (domain, true),
    };
    let below = name.strip_suffix(suffix);
    !suffix.is_empty() && ((itself && name == suffix) || below.is_some_and(|it| it.ends_with('.')))
}

fn host(server: &Uri) -> String {
    let host = server.host().unwrap_or_default().to_ascii_lowercase();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_owned()
}

fn port(server: &Uri) -> u16 {
    let default = if server.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    server.port_u16().unwrap_or(default)
}

// === impl Environment ===

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let first = |names: [&str; 2]| {
            let mut values = names
                .into_iter()
                .filter_map(|name| std::env::var(name).ok());
            values.find(|value| !value.is_empty())
        };
        Self {
            https_proxy: first(["HTTPS_PROXY", "https_proxy"]),
            http_proxy: first(["HTTP_PROXY", "http_proxy"]),
            no_proxy: first(["NO_PROXY", "no_proxy"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(server: &str, configured: Option<&str>, environment: &Environment) -> Option<String> {
        let proxy = proxy(&server.parse().unwrap(), configured, environment).unwrap();
        proxy.map(|uri| uri.to_string())
    }

    fn environment() -> Environment {
        Environment {
            https_proxy: Some("http://secure:3128".to_owned()),
            http_proxy: Some("http://plain:3128".to_owned()),
            no_proxy: None,
        }
    }

    #[test]
    fn where_the_proxy_comes_from() {
        let (none, all) = (Environment::default(), environment());
        let exempt = Environment {
            no_proxy: Some("*".to_owned()),
            ..environment()
        };
        let own = Some("http://own:8080");
        for (server, configured, environment, expected) in [
            ("https://api:6443", None, &none, None),
            ("https://api:6443", None, &all, Some("http://secure:3128/")),
            ("http://api:8080", None, &all, Some("http://plain:3128/")),
            (
                "https://api:6443",
                Some(""),
                &all,
                Some("http://secure:3128/"),
            ),
            ("https://api:6443", own, &none, Some("http://own:8080/")),
            ("https://api:6443", own, &all, Some("http://own:8080/")),
            // As in kubectl: the proxy of the kubeconfig applies to every request.
            ("https://api:6443", own, &exempt, Some("http://own:8080/")),
            (
                "https://127.0.0.1:6443",
                own,
                &all,
                Some("http://own:8080/"),
            ),
            ("https://api:6443", None, &exempt, None),
            ("https://127.0.0.1:6443", None, &all, None),
            ("https://127.8.9.1:6443", None, &all, None),
            ("https://[::1]:6443", None, &all, None),
            ("https://LocalHost:6443", None, &all, None),
        ] {
            let proxy = chosen(server, configured, environment);
            assert_eq!(proxy.as_deref(), expected, "{server} {configured:?}");
        }
    }

    #[test]
    fn what_no_proxy_names() {
        for (exceptions, server, exempt) in [
            ("api.example.com", "https://api.example.com:6443", true),
            ("API.Example.com", "https://api.example.COM", true),
            ("api.example.com.", "https://api.example.com", true),
            ("example.com", "https://api.example.com", true),
            (".example.com", "https://api.example.com", true),
            ("*.example.com", "https://api.example.com", true),
            (".example.com", "https://example.com", false),
            ("ample.com", "https://api.example.com", false),
            ("com", "https://api.example.com", true),
            ("api.example.com", "https://example.com", false),
            ("api.example.com:6443", "https://api.example.com:6443", true),
            ("api.example.com:443", "https://api.example.com", true),
            ("api.example.com:6443", "https://api.example.com", false),
            ("10.1.2.3", "https://10.1.2.3:6443", true),
            ("10.1.2.3:6443", "https://10.1.2.3:6443", true),
            ("10.1.2.3:443", "https://10.1.2.3:6443", false),
            ("10.1.2.30", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.1.2.3/8", "https://10.9.9.9", true),
            ("192.168.0.0/16", "https://10.1.2.3", false),
            ("fd00::/8", "https://[fd00::7]:6443", true),
            ("fd00::7", "https://[fd00::7]:6443", true),
            ("[fd00::7]", "https://[fd00::7]:6443", true),
            ("[fd00::7]:6443", "https://[fd00::7]:6443", true),
            ("[fd00::7]:443", "https://[fd00::7]:6443", false),
            ("10.0.0.0/8", "https://api.example.com", false),
            ("*", "https://api.example.com", true),
            ("other.test, example.com", "https://api.example.com", true),
            ("other.test example.com", "https://api.example.com", true),
            // Lists as users write them: none of their entries is an error.
            ("localhost,127.0.0.1,,", "https://api.example.com", false),
            ("<local>;/,:,.,[", "https://api.example.com", false),
            // The proxy's own address does not matter.
            ("secure", "https://api.example.com", false),
            ("", "https://api.example.com", false),
        ] {
            let environment = Environment {
                no_proxy: Some(exceptions.to_owned()),
                ..environment()
            };
            let proxy = chosen(server, None, &environment);
            assert_eq!(proxy.is_none(), exempt, "{exceptions:?} {server}");
        }
    }

    #[test]
    fn urls_of_proxies() {
        let of = |url: &str| {
            let server = "https://api:6443".parse().unwrap();
            let proxy = proxy(&server, Some(url), &Environment::default());
            proxy.map(|proxy| proxy.unwrap().to_string())
        };
        for (url, expected) in [
            ("proxy:3128", "http://proxy:3128/"),
            ("http://proxy:3128/path?query", "http://proxy:3128/"),
            ("HTTPS://proxy", "https://proxy/"),
            (
                "http://me:pass%40word@proxy:3128",
                "http://me:pass%40word@proxy:3128/",
            ),
            ("http://me:pass@word@proxy", "http://me:pass%40word@proxy/"),
            ("socks5://proxy", "socks5://proxy:1080/"),
            ("socks5h://proxy:9050", "socks5://proxy:9050/"),
            ("socks5://[::1]", "socks5://[::1]:1080/"),
            ("http://[::1]:3128", "http://[::1]:3128/"),
            (
                "http://me:a%2Fb%3Fc%23d@proxy:3128/",
                "http://me:a%2Fb%3Fc%23d@proxy:3128/",
            ),
        ] {
            assert_eq!(of(url).as_deref(), Ok(expected), "{url}");
        }
        for url in [
            "ftp://proxy",
            "socks4://proxy",
            "http://",
            "a b",
            "://",
            "/",
            "http://proxy:port",
            "http://proxy:99999",
            "http://proxy:0",
            "http://[::1]:x",
        ] {
            let (setting, url) = ("proxy-url in the kubeconfig", url.to_owned());
            let refused = of(&url);
            assert_eq!(refused, Err(ProxyError::Invalid { setting, url }));
        }
    }

    #[test]
    fn what_is_refused_is_named_without_its_password() {
        let of = |url: &str| parse("HTTPS_PROXY", url).unwrap_err().to_string();
        assert_eq!(
            of("socks5://me:secret@proxy:1080"),
            "HTTPS_PROXY is socks5://proxy:1080 with a user name; a login is supported for HTTP and HTTPS proxies only: use one of these, or a SOCKS proxy without a login"
        );
        assert_eq!(
            of("ftp://me:secret@proxy"),
            "HTTPS_PROXY is not the URL of a proxy: \"ftp://proxy\"; use http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT"
        );
        for url in [
            "ftp://me:sec/ret@proxy",
            "ftp://me:secret@pro@xy",
            "me:secret@:// ",
            "me:secret@a://b c",
            "socks5://me:sec@ret@proxy",
            "http://me:sec/ret@proxy:3128",
            "http://me:123/ret@proxy:3128",
            "me:sec/ret@proxy:3128",
            "http://me:sec?ret@proxy",
            "http://me:sec#ret@proxy",
            "http://me:sec://ret@proxy",
            "me:sec://ret@proxy",
            "me:secret@proxy:port",
        ] {
            let said = of(url);
            let hidden = ["sec", "ret", "123"]
                .iter()
                .all(|part| !said.contains(part));
            assert!(hidden && said.starts_with("HTTPS_PROXY "), "{said}");
            assert!(said.contains("pro"), "{said}");
        }
        assert_eq!(
            of("http://me:sec/ret@proxy:3128"),
            "HTTPS_PROXY has a login with an unescaped /, ? or # for the proxy \"http://proxy:3128\"; write %2F, %3F or %23 instead"
        );
        assert!(of(&"x y".repeat(100_000)).len() < 400);
    }

    #[test]
    fn passwords_are_not_shown() {
        let proxy = "http://me:secret@proxy:3128/".parse().unwrap();
        assert_eq!(redacted(&proxy), "http://proxy:3128");
        assert_eq!(
            redacted(&"socks5://proxy:1080/".parse().unwrap()),
            "socks5://proxy:1080"
        );
    }
}
