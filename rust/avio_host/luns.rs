// SPDX-License-Identifier: GPL-2.0

//! The LUNs of an adapter, by number. Queues that run share one set; a change makes a new one.

use crate::lun::Lun;
use avio_abi::MAX_LUNS;
use kernel::alloc::KVVec;
use kernel::prelude::*;
use kernel::sync::Arc;

/// A set of LUNs.
pub(crate) struct Luns(KVVec<Option<Arc<Lun>>>);

impl Luns {
    /// No LUNs.
    pub(crate) fn none() -> Result<Self> {
        let mut all = KVVec::with_capacity(MAX_LUNS as usize, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..MAX_LUNS {
            all.push(None, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self(all))
    }

    /// These LUNs, but for one place.
    pub(crate) fn with(&self, number: u32, lun: Option<Lun>) -> Result<Arc<Self>> {
        let mut all = Self::none()?;
        for (to, from) in all.0.iter_mut().zip(&self.0) {
            to.clone_from(from);
        }
        let lun = lun
            .map(|lun| Arc::new(lun, GFP_KERNEL_ACCOUNT))
            .transpose()?;
        *all.0.get_mut(number as usize).ok_or(EINVAL)? = lun;
        Ok(Arc::new(all, GFP_KERNEL_ACCOUNT)?)
    }

    /// The LUN with this number.
    pub(crate) fn get(&self, number: u32) -> Option<&Lun> {
        self.0.get(number as usize)?.as_deref()
    }

    /// All LUNs with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Lun)> {
        (0..)
            .zip(&self.0)
            .filter_map(|(number, lun)| Some((number, lun.as_deref()?)))
    }
}
