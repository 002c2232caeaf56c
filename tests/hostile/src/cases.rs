// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! All tests, each in the file of what happens in it.

mod addresses;
mod arguments;
mod broken_queues;
mod calls;
mod cgroups;
mod circular_eventfds;
mod crowd;
mod deaths;
mod double_fetch;
mod durability;
mod exchanges;
mod failing_calls;
mod failing_devices;
mod failing_kernel;
mod flooded_calls;
mod floods;
mod gate;
mod legal_luns;
mod legal_rings;
mod legal_segments;
mod limits;
mod moving_luns;
mod pins;
mod queue_reset;
mod ranges;
mod requests;
mod ring_setup;
mod segments;
mod stopping;
mod stuck_backings;
mod tables;
mod tasks;
mod visits;

use crate::run::Test;

/// Tests that leave the kernel as it is.
pub fn all() -> Vec<Test> {
    [
        broken_queues::TESTS,
        segments::TESTS,
        double_fetch::TESTS,
        ring_setup::TESTS,
        addresses::TESTS,
        tables::TESTS,
        exchanges::TESTS,
        pins::TESTS,
        requests::TESTS,
        ranges::TESTS,
        failing_devices::TESTS,
        moving_luns::TESTS,
        gate::TESTS,
        tasks::TESTS,
        queue_reset::TESTS,
        limits::TESTS,
        floods::TESTS,
        flooded_calls::TESTS,
        crowd::TESTS,
        calls::TESTS,
        cgroups::TESTS,
        circular_eventfds::TESTS,
        arguments::TESTS,
        stopping::TESTS,
        stuck_backings::TESTS,
        deaths::TESTS,
        visits::TESTS,
        legal_segments::TESTS,
        legal_rings::TESTS,
        legal_luns::TESTS,
    ]
    .concat()
}

/// Tests that make the kernel or a device fail.
pub fn faults() -> Vec<Test> {
    [
        failing_calls::TESTS,
        failing_kernel::TESTS,
        durability::TESTS,
    ]
    .concat()
}
