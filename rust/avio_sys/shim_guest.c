// SPDX-License-Identifier: GPL-2.0
#include "shim_guest.h"

u32 avio_rq_bytes(const struct request *rq)
{
	return blk_rq_bytes(rq);
}
