/*
 * Which slots there are and how they are numbered.
 *
 * Each initialised SoftHSM token is a partition. In the HA dress a partition is
 * a group: a virtual slot and its members, all with the same objects and one
 * login. A slot keeps the number that it is first listed under, except that with
 * haonly off the loss of a member renumbers them all.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pad(unsigned char *field, size_t room, const char *text)
{
	size_t length = strnlen(text, room);
	memset(field, ' ', room);
	memcpy(field, text, length);
}

static void trim(char *text, const unsigned char *field, size_t room)
{
	while (room > 0 && (field[room - 1] == ' ' || field[room - 1] == '\0'))
		room--;
	memcpy(text, field, room);
	text[room] = '\0';
}

/* Makes 13 digits, as Luna partitions have, of SoftHSM's 16 hexadecimal ones. */
static void set_serial(struct partition *partition, const char *softhsm)
{
	uint64_t number = strtoull(softhsm, NULL, 16);
	snprintf(partition->serial, sizeof partition->serial, "%" PRIu64,
		 number % UINT64_C(9000000000000) + UINT64_C(1000000000000));
}

static CK_RV add_partition(CK_SLOT_ID real)
{
	CK_TOKEN_INFO info;
	CK_RV answer = sim.real->C_GetTokenInfo(real, &info);
	if (answer != CKR_OK || (info.flags & CKF_TOKEN_INITIALIZED) == 0)
		return answer;
	if (sim.partition_count == MAX_PARTITIONS)
		return CKR_HOST_MEMORY;
	struct partition *partition = &sim.partitions[sim.partition_count++];
	char serial[17];
	*partition = (struct partition){.real = real, .model = sim.config.model};
	trim(serial, info.serialNumber, sizeof info.serialNumber);
	set_serial(partition, serial);
	trim(partition->label, info.label, sizeof info.label);
	if (sim.config.cloud && strcmp(partition->label, sim.config.hybrid_label) == 0) {
		partition->hybrid = true;
		partition->model = "LunaSA 7.2.0";
	}
	return CKR_OK;
}

/* Luna's partitions come first in a hybrid client. */
static int by_serial(const void *a, const void *b)
{
	const struct partition *left = a, *right = b;
	if (left->hybrid != right->hybrid)
		return left->hybrid ? -1 : 1;
	return strcmp(left->serial, right->serial);
}

static void add_slot(enum slot_kind kind, struct partition *partition, unsigned member)
{
	if (sim.slot_count < MAX_SLOTS)
		sim.slots[sim.slot_count++] = (struct slot){.kind = kind, .partition = partition, .member = member};
}

static bool listed(const struct slot *slot, const struct control *control)
{
	if (slot->kind == HA_MEMBER)
		return !sim.config.ha_only && link_member_up(control, slot->member);
	return slot->partition == NULL || !control_has(control, "hidden", slot->partition->label);
}

static void give_numbers(const struct control *control)
{
	bool moving = sim.config.ha_members > 0 && !sim.config.ha_only;
	if (moving)
		sim.next_slot_id = 0;
	for (unsigned long i = 0; i < sim.slot_count; i++) {
		struct slot *slot = &sim.slots[i];
		slot->numbered &= !moving;
		if (slot->numbered || !listed(slot, control))
			continue;
		if (slot->partition != NULL && !slot->partition->hybrid && sim.next_slot_id < sim.config.first_slot)
			sim.next_slot_id = sim.config.first_slot;
		slot->numbered = true;
		slot->id = sim.next_slot_id++;
	}
}

CK_RV slots_build(const struct control *control)
{
	CK_SLOT_ID real[MAX_PARTITIONS + 1];
	CK_ULONG count = MAX_PARTITIONS + 1;
	CK_RV answer = sim.real->C_GetSlotList(CK_TRUE, real, &count);
	sim.partition_count = sim.slot_count = sim.next_slot_id = 0;
	for (CK_ULONG i = 0; answer == CKR_OK && i < count; i++)
		answer = add_partition(real[i]);
	if (answer != CKR_OK)
		return answer;
	qsort(sim.partitions, sim.partition_count, sizeof *sim.partitions, by_serial);

	for (CK_ULONG i = 0; i < sim.partition_count; i++) {
		struct partition *partition = &sim.partitions[i];
		if (sim.no_cloud && !partition->hybrid)
			continue;
		for (unsigned member = 1; member <= sim.config.ha_members; member++)
			add_slot(HA_MEMBER, partition, member);
		add_slot(sim.config.ha_members > 0 ? HA_GROUP : PARTITION, partition, 0);
	}
	for (unsigned long i = 0; i < sim.config.empty_slots; i++)
		add_slot(PLACEHOLDER, NULL, 0);
	give_numbers(control);
	return CKR_OK;
}

struct slot *slot_find(CK_SLOT_ID id)
{
	for (unsigned long i = 0; i < sim.slot_count; i++)
		if (sim.slots[i].numbered && sim.slots[i].id == id)
			return &sim.slots[i];
	return NULL;
}

CK_RV slot_present(const struct call *call)
{
	const struct partition *partition = call->slot->partition;
	if (partition == NULL || control_has(&call->control, "deleted", partition->label))
		return CKR_TOKEN_NOT_PRESENT;
	return CKR_OK;
}

/* A group has the serial of its first member with a 1 before it (the slot list
 * in "Managing and Troubleshooting Your HA Groups" of Luna 7.1). */
void slot_serial(const struct slot *slot, char serial[17])
{
	const char *base = slot->partition->serial;
	if (slot->kind == HA_GROUP)
		snprintf(serial, 17, "1%.15s", base);
	else if (slot->member > 1)
		snprintf(serial, 17, "%lu", strtoul(base, NULL, 10) + slot->member - 1);
	else
		snprintf(serial, 17, "%s", base);
}

CK_RV slot_list(struct call *call, CK_BBOOL with_token, CK_SLOT_ID *list, CK_ULONG *count)
{
	if (count == NULL)
		return CKR_ARGUMENTS_BAD;
	CK_ULONG room = *count, n = 0;
	pthread_mutex_lock(&sim.lock);
	if (list == NULL)
		give_numbers(&call->control);
	for (CK_SLOT_ID id = 0; id < sim.next_slot_id; id++) {
		const struct slot *slot = slot_find(id);
		if (slot == NULL || (with_token && slot->partition == NULL))
			continue;
		if (list != NULL && n < room)
			list[n] = id;
		n++;
	}
	pthread_mutex_unlock(&sim.lock);
	*count = n;
	return list != NULL && n > room ? CKR_BUFFER_TOO_SMALL : CKR_OK;
}

CK_RV slot_info(struct call *call, CK_SLOT_INFO *info)
{
	if (info == NULL)
		return CKR_ARGUMENTS_BAD;
	*info = (CK_SLOT_INFO){.flags = CKF_HW_SLOT | CKF_REMOVABLE_DEVICE};
	if (slot_present(call) == CKR_OK)
		info->flags |= CKF_TOKEN_PRESENT;
	const char *description = call->slot->kind == HA_GROUP ? "HA Virtual Card Slot" : "LunaNet Slot";
	pad(info->slotDescription, sizeof info->slotDescription, description);
	pad(info->manufacturerID, sizeof info->manufacturerID, "SafeNet");
	return CKR_OK;
}
