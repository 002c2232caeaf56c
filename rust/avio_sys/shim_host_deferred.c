// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/blk-cgroup.h>
#include <linux/ioprio.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

struct avio_deferred {
	struct workqueue_struct *queue;
	struct work_struct work;
	struct cgroup_subsys_state *css;
	spinlock_t lock;
	struct bio_list bios;
	/* Bios wait here, or are being submitted. */
	bool busy;
};

/* A bio that was refused has ended: makes it what it was, but for what it was counted as. */
static void avio_bio_anew(struct avio_deferred *deferred, struct bio *bio)
{
	unsigned short counted = bio->bi_flags & (1 << BIO_CGROUP_ACCT | 1 << BIO_BPS_THROTTLED);
	unsigned short ioprio = bio->bi_ioprio;
	sector_t sector = bio->bi_iter.bi_sector;

	bio_reuse(bio, bio->bi_opf);
	bio->bi_flags |= counted;
	bio->bi_ioprio = ioprio;
	bio->bi_iter.bi_sector = sector;
	avio_bio_charge(bio, deferred->css);
}

static void avio_deferred_work(struct work_struct *work)
{
	struct avio_deferred *deferred = container_of(work, struct avio_deferred, work);
	struct blk_plug plug;
	struct bio_list bios;
	struct bio *bio;

	spin_lock_irq(&deferred->lock);
	bios = deferred->bios;
	bio_list_init(&deferred->bios);
	spin_unlock_irq(&deferred->lock);
	blk_start_plug(&plug);
	while ((bio = bio_list_pop(&bios))) {
		if (bio->bi_status)
			avio_bio_anew(deferred, bio);
		submit_bio(bio);
	}
	blk_finish_plug(&plug);
	spin_lock_irq(&deferred->lock);
	WRITE_ONCE(deferred->busy, !bio_list_empty(&deferred->bios));
	spin_unlock_irq(&deferred->lock);
}

void *avio_deferred_new(void *css)
{
	struct avio_deferred *deferred = kzalloc(sizeof(*deferred), GFP_KERNEL_ACCOUNT);

	if (!deferred)
		return NULL;
	deferred->queue = alloc_ordered_workqueue("avio_lun", 0);
	if (!deferred->queue) {
		kfree(deferred);
		return NULL;
	}
	INIT_WORK(&deferred->work, avio_deferred_work);
	deferred->css = css;
	spin_lock_init(&deferred->lock);
	bio_list_init(&deferred->bios);
	return deferred;
}

void avio_deferred_drop(void *held)
{
	struct avio_deferred *deferred = held;

	destroy_workqueue(deferred->queue);
	kfree(deferred);
}

bool avio_deferred_busy(const void *held)
{
	const struct avio_deferred *deferred = held;

	return READ_ONCE(deferred->busy);
}

void avio_deferred_submit(void *held, struct bio *bio)
{
	struct avio_deferred *deferred = held;
	unsigned long flags;

	/* One that was refused has that of its submitter already. */
	if (!bio->bi_status)
		bio->bi_ioprio = get_current_ioprio();
	spin_lock_irqsave(&deferred->lock, flags);
	bio_list_add(&deferred->bios, bio);
	WRITE_ONCE(deferred->busy, true);
	/* Still under the lock: without it the bio may end at any moment, and then all this may go. */
	queue_work(deferred->queue, &deferred->work);
	spin_unlock_irqrestore(&deferred->lock, flags);
}
