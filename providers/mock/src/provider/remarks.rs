//! Messages about settings that a provider of this crate does not implement. Pure.

use ballast_provider::Member;

/// The annotation of `share_key`.
pub(crate) const SHARE_KEY: &str = "ballast.dev/share-key";

/// One remark for each setting that has no effect: the pool, the settings for other
/// providers, and the annotations in `others`.
pub(crate) fn of(member: &Member, others: &[&str]) -> Vec<String> {
    let pool = member.placement.pool.as_ref();
    let pool = pool.map(|_| "ballast.dev/address-pool");
    let settings = member.load_balancer.settings.keys().map(String::as_str);
    let ignored = others.iter().copied().chain(pool).chain(settings);
    ignored
        .map(|key| format!("the mock provider ignores {key}"))
        .collect()
}
