/* SPDX-License-Identifier: GPL-2.0 */
/* C that Rust cannot call itself (inline functions, macros), for the guest driver. No logic here. */
#ifndef AVIO_SHIM_GUEST_H
#define AVIO_SHIM_GUEST_H
#include <linux/blk-mq.h>

u32 avio_rq_bytes(const struct request *rq);
#endif
