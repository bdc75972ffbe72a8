//! Whether a device may be served, or must provision first ([MS-ASPROV] policy key; [MS-ASCMD] 2.2.2 Common Status Codes).

use crate::dav::standing::{Order, PolicyHash, Standing};
use crate::eas::{CommonStatus, Version};

/// What a device acknowledged last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Provisioned {
    /// The final key; 0 = none.
    pub key: u32,
    /// The policy behind it; `None` = the one that forbids nothing.
    pub policy: Option<PolicyHash>,
}

/// Why a command with the policy key `sent` is refused; `None` = it is served. Not for Provision itself, nor for Ping,
/// which carries no key.
pub fn demand(
    standing: Standing,
    provisioned: Provisioned,
    sent: Option<u32>,
    version: Version,
) -> Option<CommonStatus> {
    if let Some(refusal) = refused(standing.order, version) {
        return Some(refusal);
    }
    let policy = standing.policy?;
    // 0 is what devices send that have no key.
    match sent.filter(|key| *key != 0) {
        None => Some(CommonStatus::DeviceNotProvisioned),
        Some(key) if key != provisioned.key => Some(CommonStatus::InvalidPolicyKey),
        Some(_) if provisioned.policy != Some(policy) => Some(CommonStatus::PolicyRefresh),
        Some(_) => None,
    }
}

/// The refusal that an order is, whatever the policy. Account-only wipe exists from 16.1 up; an older device is kept out.
fn refused(order: Order, version: Version) -> Option<CommonStatus> {
    match order {
        Order::None | Order::Allowed => None,
        Order::AccountWipe if !version.has_account_only_wipe() => {
            Some(CommonStatus::DeviceIsBlockedForThisUser)
        }
        Order::Wipe | Order::AccountWipe => Some(CommonStatus::RemoteWipeRequested),
        Order::Blocked | Order::Quarantined => Some(CommonStatus::DeviceIsBlockedForThisUser),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_must_be_there_be_ours_and_be_of_the_policy_in_force() {
        let hash = PolicyHash::of(b"now");
        let standing = Standing { order: Order::None, policy: Some(hash) };
        let (good, old) = (
            Provisioned { key: 7, policy: Some(hash) },
            Provisioned { key: 7, policy: Some(PolicyHash::of(b"before")) },
        );
        let code = |standing, provisioned, sent| {
            demand(standing, provisioned, sent, Version::V14_1).map_or(0, CommonStatus::code)
        };
        assert_eq!(code(standing, good, Some(7)), 0);
        assert_eq!([None, Some(0)].map(|sent| code(standing, good, sent)), [142, 142]);
        assert_eq!(code(standing, good, Some(8)), 144);
        assert_eq!(code(standing, old, Some(7)), 143);
        assert_eq!(code(standing, Provisioned { key: 7, policy: None }, Some(7)), 143);
        assert_eq!(code(standing, Provisioned::default(), Some(9)), 144);
        assert_eq!(code(Standing::default(), Provisioned::default(), None), 0, "no policy is in force");
    }

    #[test]
    fn orders_come_before_keys() {
        let code = |order, version| {
            let standing = Standing { order, policy: None };
            demand(standing, Provisioned::default(), None, version).map_or(0, CommonStatus::code)
        };
        let of = |order| [Version::V2_5, Version::V16_1].map(|version| code(order, version));
        assert_eq!(of(Order::Wipe), [140, 140]);
        assert_eq!(of(Order::AccountWipe), [129, 140]);
        assert_eq!((of(Order::Blocked), of(Order::Quarantined)), ([129, 129], [129, 129]));
        assert_eq!(of(Order::Allowed), [0, 0]);
    }
}
