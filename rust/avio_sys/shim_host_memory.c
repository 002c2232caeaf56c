// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/highmem.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

long avio_pin(u64 user_addr, u32 pages, bool write, u64 *frames)
{
	/* The frame numbers replace the page pointers, place by place. */
	struct page **list = (struct page **)frames;
	long got, i;

	BUILD_BUG_ON(sizeof(*list) != sizeof(*frames));
	cond_resched();
	if (fatal_signal_pending(current))
		return -EINTR;
	got = pin_user_pages_fast(user_addr, pages, FOLL_LONGTERM | (write ? FOLL_WRITE : 0), list);
	for (i = 0; i < got; i++)
		frames[i] = page_to_pfn(list[i]);
	return got;
}

void avio_unpin(u64 frame, u64 pages, bool dirty)
{
	cond_resched();
	unpin_user_page_range_dirty_lock(pfn_to_page(frame), pages, dirty);
}

void avio_copy_from_frame(void *to, u64 frame, u32 offset, u32 len)
{
	for (; len; frame++, offset = 0) {
		u32 part = min_t(u32, len, PAGE_SIZE - offset);

		memcpy_from_page(to, pfn_to_page(frame), offset, part);
		to += part;
		len -= part;
	}
}

void *avio_map_frames(const u64 *frames, u32 count)
{
	struct page **list = kvmalloc_array(count, sizeof(*list), GFP_KERNEL);
	void *addr;
	u32 i;

	if (!list)
		return NULL;
	for (i = 0; i < count; i++)
		list[i] = pfn_to_page(frames[i]);
	addr = vmap(list, count, VM_MAP, PAGE_KERNEL);
	for (i = 0; addr && i < count; i++)
		get_page(list[i]);
	kvfree(list);
	return addr;
}

void avio_unmap_frames(void *addr, const u64 *frames, u32 count)
{
	u32 i;

	vunmap(addr);
	for (i = 0; i < count; i++)
		put_page(pfn_to_page(frames[i]));
}
