/*
 * Attributes that only Luna has. SoftHSM knows none of them, so they are taken
 * out of each template. CKA_OUID and CKA_FINGERPRINT_SHA256 are computed;
 * CKA_GENERIC_1 to 3 and CKA_EKM_UID, which applications may set, are lines
 * `ouid type value` in hexadecimal of TOKENDIR.SERIAL.attributes.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

static bool is_settable(CK_ATTRIBUTE_TYPE type)
{
	return type == CKA_LUNA_EKM_UID || (type >= CKA_LUNA_GENERIC_1 && type <= CKA_LUNA_GENERIC_3);
}

static bool is_vendor(CK_ATTRIBUTE_TYPE type)
{
	return is_settable(type) || type == CKA_LUNA_OUID || type == CKA_LUNA_FINGERPRINT_SHA256;
}

bool template_split(struct template *split, const CK_ATTRIBUTE *attributes, CK_ULONG count)
{
	if (attributes == NULL && count > 0)
		return false;
	/* One more, for what object_create adds. */
	*split = (struct template){
		.standard = calloc(count + 1, sizeof *attributes),
		.vendor = calloc(count + 1, sizeof *attributes),
	};
	if (split->standard == NULL || split->vendor == NULL) {
		template_free(split);
		return false;
	}
	for (CK_ULONG i = 0; i < count; i++)
		if (is_vendor(attributes[i].type))
			split->vendor[split->vendor_count++] = attributes[i];
		else
			split->standard[split->standard_count++] = attributes[i];
	return true;
}

void template_free(struct template *split)
{
	free(split->standard);
	free(split->vendor);
}

static const CK_ATTRIBUTE *lookup(const CK_ATTRIBUTE *attributes, CK_ULONG count, CK_ATTRIBUTE_TYPE type)
{
	for (CK_ULONG i = 0; attributes != NULL && i < count; i++)
		if (attributes[i].type == type)
			return &attributes[i];
	return NULL;
}

bool template_has(const CK_ATTRIBUTE *attributes, CK_ULONG count, CK_ATTRIBUTE_TYPE type)
{
	return lookup(attributes, count, type) != NULL;
}

bool template_bool(const CK_ATTRIBUTE *attributes, CK_ULONG count, CK_ATTRIBUTE_TYPE type, bool otherwise)
{
	const CK_ATTRIBUTE *found = lookup(attributes, count, type);
	if (found == NULL || found->pValue == NULL || found->ulValueLen != sizeof(CK_BBOOL))
		return otherwise;
	return *(const CK_BBOOL *)found->pValue != CK_FALSE;
}

CK_ULONG template_ulong(const CK_ATTRIBUTE *attributes, CK_ULONG count, CK_ATTRIBUTE_TYPE type)
{
	CK_ULONG value = CK_UNAVAILABLE_INFORMATION;
	const CK_ATTRIBUTE *found = lookup(attributes, count, type);
	if (found != NULL && found->pValue != NULL && found->ulValueLen == sizeof value)
		memcpy(&value, found->pValue, sizeof value);
	return value;
}

static void to_hex(char *hex, const unsigned char *bytes, size_t count)
{
	*hex = '\0';
	for (size_t i = 0; i < count; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

/* How the line of an attribute begins. */
static void table_key(const struct call *call, CK_OBJECT_HANDLE real, CK_ATTRIBUTE_TYPE type, char key[64])
{
	unsigned char ouid[OUID_BYTES];
	char hex[2 * OUID_BYTES + 1];
	identity_ouid(call, real, ouid);
	to_hex(hex, ouid, sizeof ouid);
	snprintf(key, 64, "%s %lx ", hex, type);
}

static void table_path(const struct call *call, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%.4000s.%s.attributes", sim.config.token_dir, call->partition->serial);
}

/* Finds a line; *after is set to the one that follows. */
static char *table_line(char *text, const char *key, char **after)
{
	size_t length = strlen(key);
	for (char *line = text; line != NULL && *line != '\0'; line = *after) {
		*after = strchr(line, '\n');
		*after = *after != NULL ? *after + 1 : line + strlen(line);
		if (strncmp(line, key, length) == 0)
			return line;
	}
	return NULL;
}

static CK_RV store(const struct call *call, CK_OBJECT_HANDLE real, const CK_ATTRIBUTE *attribute)
{
	if (!is_settable(attribute->type))
		return CKR_ATTRIBUTE_READ_ONLY;
	char path[PATH_MAX], key[64], *after = NULL;
	table_path(call, path);
	table_key(call, real, attribute->type, key);
	int lock = file_lock(path);
	char *text = file_read(path);
	char *old = table_line(text, key, &after);
	size_t before = old != NULL ? (size_t)(old - text) : 0;
	const char *rest = old != NULL ? after : text != NULL ? text : "";
	size_t room = before + strlen(rest) + sizeof key + 2 * attribute->ulValueLen + 2;
	char *changed = malloc(room);
	bool stored = changed != NULL;
	if (stored) {
		size_t used = (size_t)snprintf(changed, room, "%.*s%s", (int)before, text != NULL ? text : "", key);
		to_hex(changed + used, attribute->pValue, attribute->ulValueLen);
		strcat(changed, "\n");
		strcat(changed, rest);
		stored = file_replace(path, changed);
	}
	free(changed);
	free(text);
	file_unlock(lock);
	return stored ? CKR_OK : CKR_DEVICE_MEMORY;
}

CK_RV attribute_keep(const struct call *call, CK_OBJECT_HANDLE real, const struct template *split)
{
	CK_RV answer = CKR_OK;
	for (CK_ULONG i = 0; answer == CKR_OK && i < split->vendor_count; i++)
		answer = store(call, real, &split->vendor[i]);
	return answer;
}

/* Answers as C_GetAttributeValue does for one attribute. */
static CK_RV fill(CK_ATTRIBUTE *attribute, const unsigned char *value, size_t length)
{
	if (attribute->pValue != NULL && attribute->ulValueLen < length) {
		attribute->ulValueLen = CK_UNAVAILABLE_INFORMATION;
		return CKR_BUFFER_TOO_SMALL;
	}
	if (attribute->pValue != NULL)
		memcpy(attribute->pValue, value, length);
	attribute->ulValueLen = length;
	return CKR_OK;
}

static CK_RV load(const struct call *call, CK_OBJECT_HANDLE real, CK_ATTRIBUTE *attribute)
{
	char path[PATH_MAX], key[64], *after = NULL;
	table_path(call, path);
	table_key(call, real, attribute->type, key);
	char *text = file_read(path);
	char *line = table_line(text, key, &after);
	CK_RV answer = CKR_ATTRIBUTE_TYPE_INVALID;
	if (line != NULL) {
		char *hex = line + strlen(key);
		size_t length = (size_t)(after - 1 - hex) / 2;
		unsigned char *bytes = (unsigned char *)line; /* decoded in place, to the left of what is read */
		for (size_t i = 0; i < length; i++)
			sscanf(hex + 2 * i, "%2hhx", &bytes[i]);
		answer = fill(attribute, bytes, length);
	} else {
		attribute->ulValueLen = CK_UNAVAILABLE_INFORMATION;
	}
	free(text);
	return answer;
}

static CK_RV get_vendor(const struct call *call, CK_OBJECT_HANDLE real, CK_ATTRIBUTE *attribute)
{
	unsigned char value[FINGERPRINT_BYTES];
	switch (attribute->type) {
	case CKA_LUNA_OUID:
		identity_ouid(call, real, value);
		return fill(attribute, value, OUID_BYTES);
	case CKA_LUNA_FINGERPRINT_SHA256:
		identity_fingerprint(call, real, value);
		return fill(attribute, value, FINGERPRINT_BYTES);
	default:
		return load(call, real, attribute);
	}
}

CK_RV attribute_get(struct call *call, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *attributes, CK_ULONG count)
{
	CK_OBJECT_HANDLE real = handle_in(object);
	struct template split;
	if (!template_split(&split, attributes, count))
		return CKR_ARGUMENTS_BAD;
	CK_RV answer = sim.real->C_GetAttributeValue(call->real, real, split.standard, split.standard_count);
	bool exists = answer == CKR_OK || answer == CKR_ATTRIBUTE_SENSITIVE || answer == CKR_ATTRIBUTE_TYPE_INVALID ||
		      answer == CKR_BUFFER_TOO_SMALL;
	for (CK_ULONG i = 0, next = 0; exists && i < count; i++) {
		CK_RV one = CKR_OK;
		if (is_vendor(attributes[i].type))
			one = get_vendor(call, real, &attributes[i]);
		else
			attributes[i].ulValueLen = split.standard[next++].ulValueLen;
		if (answer == CKR_OK)
			answer = one;
	}
	template_free(&split);
	return answer;
}

CK_RV attribute_set(struct call *call, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *attributes, CK_ULONG count)
{
	CK_OBJECT_HANDLE real = handle_in(object);
	struct template split;
	if (!policy_on(POLICY_CHANGE_ATTRIBUTES))
		return CKR_ATTRIBUTE_READ_ONLY;
	CK_RV answer = policy_change(call, true);
	if (answer != CKR_OK)
		return answer;
	if (!template_split(&split, attributes, count))
		return CKR_ARGUMENTS_BAD;
	if (template_bool(attributes, count, CKA_WRAP, false) && identity_class(call, real) == CKO_PRIVATE_KEY)
		answer = CKR_TEMPLATE_INCONSISTENT;
	if (answer == CKR_OK && split.standard_count > 0)
		answer = sim.real->C_SetAttributeValue(call->real, real, split.standard, split.standard_count);
	if (answer == CKR_OK)
		answer = attribute_keep(call, real, &split);
	template_free(&split);
	return answer;
}
