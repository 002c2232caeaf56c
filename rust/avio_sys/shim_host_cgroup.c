// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/blk-cgroup.h>
#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/ioprio.h>
#include <linux/magic.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

struct avio_cgroup {
	struct cgroup_subsys_state *css;
	struct work_struct work;
	spinlock_t lock;
	struct bio_list bios;
};

static void avio_cgroup_work(struct work_struct *work)
{
	struct avio_cgroup *cgroup = container_of(work, struct avio_cgroup, work);
	struct blk_plug plug;
	struct bio_list bios;
	struct bio *bio;

	spin_lock(&cgroup->lock);
	bios = cgroup->bios;
	bio_list_init(&cgroup->bios);
	spin_unlock(&cgroup->lock);
	blk_start_plug(&plug);
	while ((bio = bio_list_pop(&bios)))
		submit_bio(bio);
	blk_finish_plug(&plug);
}

/* The I/O controller's own state of an open cgroup directory in which the caller could make children. */
static struct cgroup_subsys_state *avio_cgroup_css(struct file *file)
{
#ifdef CONFIG_BLK_CGROUP
	struct inode *inode = file_inode(file);
	struct cgroup_subsys_state *css;
	struct cgroup *cgrp;
	int error;

	if (inode->i_sb->s_magic != CGROUP2_SUPER_MAGIC || !S_ISDIR(inode->i_mode))
		return ERR_PTR(-EBADF);
	error = file_permission(file, MAY_WRITE);
	if (error)
		return ERR_PTR(error);
	/* A cgroup's ID is the number of its inode. */
	cgrp = cgroup_get_from_id(inode->i_ino);
	if (IS_ERR(cgrp))
		return ERR_CAST(cgrp);
	css = cgroup_get_e_css(cgrp, &io_cgrp_subsys);
	if (css->cgroup != cgrp) {
		css_put(css);
		css = ERR_PTR(-ENODEV);
	}
	cgroup_put(cgrp);
	return css;
#else
	return ERR_PTR(-ENODEV);
#endif
}

void *avio_cgroup_get(int fd)
{
	struct avio_cgroup *cgroup;
	struct file *file = fget(fd);

	if (!file)
		return ERR_PTR(-EBADF);
	cgroup = kzalloc(sizeof(*cgroup), GFP_KERNEL_ACCOUNT);
	if (!cgroup) {
		fput(file);
		return ERR_PTR(-ENOMEM);
	}
	cgroup->css = avio_cgroup_css(file);
	fput(file);
	if (IS_ERR(cgroup->css)) {
		void *error = ERR_CAST(cgroup->css);

		kfree(cgroup);
		return error;
	}
	INIT_WORK(&cgroup->work, avio_cgroup_work);
	spin_lock_init(&cgroup->lock);
	bio_list_init(&cgroup->bios);
	return cgroup;
}

void avio_cgroup_put(void *held)
{
	struct avio_cgroup *cgroup = held;

	cancel_work_sync(&cgroup->work);
	css_put(cgroup->css);
	kfree(cgroup);
}

void avio_cgroup_submit(void *held, struct bio *bio)
{
	struct avio_cgroup *cgroup = held;

	bio_associate_blkg_from_css(bio, cgroup->css);
	bio->bi_ioprio = get_current_ioprio();
	spin_lock(&cgroup->lock);
	bio_list_add(&cgroup->bios, bio);
	spin_unlock(&cgroup->lock);
	queue_work(system_dfl_wq, &cgroup->work);
}
