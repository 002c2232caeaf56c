// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/debugfs.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/vhost_task.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>

/* What a sleep may last longer, so that wake-ups can come together. */
#define AVIO_SLACK_NS 20000

struct bio *avio_bio_make(struct bio *own, struct bio_vec *table, struct block_device *bdev, u16 vecs, u32 opf,
			  u64 sector, u32 size, void (*end_io)(struct bio *bio), void *private)
{
	struct bio *bio = own;

	if (own)
		bio_init(own, bdev, table, vecs, (__force blk_opf_t)opf);
	else
		bio = bio_alloc(bdev, vecs, (__force blk_opf_t)opf, GFP_NOIO);
	bio->bi_iter.bi_sector = sector;
	bio->bi_iter.bi_size = size;
	bio->bi_end_io = end_io;
	bio->bi_private = private;
	return bio;
}

bool avio_bio_add_frame(struct bio *bio, u64 frame, u32 len, u32 offset)
{
	return bio_add_page(bio, pfn_to_page(frame), len, offset) == len;
}

void avio_wait_zero(atomic_t *counter)
{
	wait_var_event(counter, atomic_read_acquire(counter) == 0);
}

void avio_dec_and_wake(atomic_t *counter)
{
	atomic_dec_and_wake_up(counter);
}

void *avio_task_start(bool (*fn)(void *arg), void (*killed)(void *arg), void *arg, void **slot, const char *name)
{
	struct vhost_task *task = vhost_task_create(fn, killed, arg, name);

	if (!IS_ERR(task)) {
		*slot = task;
		vhost_task_start(task);
	}
	return task;
}

void avio_task_stop(void *task)
{
	vhost_task_stop(task);
}

void avio_task_wake(void *task)
{
	vhost_task_wake(task);
}

void avio_set_running(void)
{
	__set_current_state(TASK_RUNNING);
}

void avio_yield(void)
{
	cond_resched();
}

void avio_step_aside(void)
{
	yield();
}

/* The caller has set its state before it found nothing to do. */
bool avio_sleep_elapsed(u64 ns)
{
	ktime_t time = ns_to_ktime(ns);

	return schedule_hrtimeout_range(&time, AVIO_SLACK_NS, HRTIMER_MODE_REL) == 0;
}

u64 avio_now(void)
{
	return ktime_get_ns();
}

bool avio_alone(void)
{
	return !need_resched() && !signal_pending(current) && single_task_running();
}

bool avio_nap_killed(u64 ns)
{
	ktime_t time = ns_to_ktime(ns);

	__set_current_state(TASK_KILLABLE);
	schedule_hrtimeout_range(&time, AVIO_SLACK_NS, HRTIMER_MODE_REL);
	return fatal_signal_pending(current);
}

struct avio_debug {
	struct dentry *dentry;
	void (*show)(struct seq_file *m, void *arg);
	void *arg;
};

static struct dentry *avio_debug_dir;

static int avio_debug_show(struct seq_file *m, void *unused)
{
	struct avio_debug *file = m->private;

	file->show(m, file->arg);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(avio_debug);

void avio_debug_init(const char *name)
{
	avio_debug_dir = debugfs_create_dir(name, NULL);
}

void avio_debug_exit(void)
{
	debugfs_remove(avio_debug_dir);
}

void *avio_debug_create(const char *name, void (*show)(struct seq_file *m, void *arg), void *arg)
{
	struct avio_debug *file = kmalloc(sizeof(*file), GFP_KERNEL);

	if (!file)
		return NULL;
	file->show = show;
	file->arg = arg;
	file->dentry = debugfs_create_file(name, 0400, avio_debug_dir, file, &avio_debug_fops);
	return file;
}

void avio_debug_remove(void *shown)
{
	struct avio_debug *file = shown;

	debugfs_remove(file->dentry);
	kfree(file);
}

struct avio_kick {
	poll_table table;
	wait_queue_entry_t wait;
	wait_queue_head_t *head;
	struct file *file;
	void (*fn)(void *arg);
	void *arg;
};

static int avio_kick_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct avio_kick *kick = container_of(wait, struct avio_kick, wait);

	if (key_to_poll(key) & EPOLLIN)
		kick->fn(kick->arg);
	return 0;
}

static void avio_kick_queue(struct file *file, wait_queue_head_t *head, poll_table *table)
{
	struct avio_kick *kick = container_of(table, struct avio_kick, table);

	kick->head = head;
	add_wait_queue(head, &kick->wait);
}

void *avio_kick_attach(struct file *eventfd, void (*fn)(void *arg), void *arg)
{
	struct avio_kick *kick = kzalloc(sizeof(*kick), GFP_KERNEL);

	if (!kick)
		return ERR_PTR(-ENOMEM);
	kick->file = get_file(eventfd);
	kick->fn = fn;
	kick->arg = arg;
	init_waitqueue_func_entry(&kick->wait, avio_kick_wake);
	init_poll_funcptr(&kick->table, avio_kick_queue);
	if (vfs_poll(eventfd, &kick->table) & EPOLLIN)
		fn(arg);
	return kick;
}

void avio_kick_detach(void *attached)
{
	struct avio_kick *kick = attached;

	if (kick->head)
		remove_wait_queue(kick->head, &kick->wait);
	fput(kick->file);
	kfree(kick);
}

/* The release, for whoever must do without debugfs. A test of avio_abi compares it with release.rs. */
MODULE_VERSION("0.1.0");
