package lunaclient

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

// Functions that the Luna client exports beside PKCS#11. The prototypes are
// those that ThalesGroup/pycryptoki declares; all types are CK_ULONG.
typedef unsigned long (*firmware_version)(unsigned long slot, unsigned long *major, unsigned long *minor, unsigned long *subminor);
typedef unsigned long (*policy_set)(unsigned long slot, unsigned long *ids, unsigned long *id_count, unsigned long *values, unsigned long *value_count);

static unsigned long call_firmware(void *f, unsigned long slot, unsigned long *major, unsigned long *minor, unsigned long *subminor)
{
	return ((firmware_version)f)(slot, major, minor, subminor);
}

static unsigned long call_policies(void *f, unsigned long slot, unsigned long *ids, unsigned long *id_count, unsigned long *values, unsigned long *value_count)
{
	return ((policy_set)f)(slot, ids, id_count, values, value_count);
}
*/
import "C"

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
)

// Inspector returns the hook that asks a token for its firmware, its policies
// and its FIPS state. The functions that tell are looked up in the library when
// it is called; what a library does not have, or a device does not answer, is
// left out.
func Inspector(library string) func(pkcs11.Slot) pkcs11.Details {
	return func(slot pkcs11.Slot) pkcs11.Details {
		name := C.CString(library)
		defer C.free(unsafe.Pointer(name))
		// The engine has it loaded; it is never unloaded.
		handle := C.dlopen(name, C.RTLD_LAZY|C.RTLD_NOLOAD)
		if handle == nil {
			return pkcs11.Details{}
		}
		e := extension{handle: handle, slot: C.ulong(slot.ID)}
		policies := e.partitionPolicies()
		return pkcs11.Details{Firmware: e.firmware(), FIPS: e.fips(policies), Policies: policies}
	}
}

// extension is the vendor's side of a library, for one slot.
type extension struct {
	handle unsafe.Pointer
	slot   C.ulong
}

func (e extension) symbol(name string) unsafe.Pointer {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	return C.dlsym(e.handle, s)
}

// firmware returns "major.minor.patch". CK_TOKEN_INFO has no room for the patch
// level.
func (e extension) firmware() string {
	f := e.symbol("CA_GetFirmwareVersion")
	if f == nil {
		return ""
	}
	var major, minor, patch C.ulong
	if C.call_firmware(f, e.slot, &major, &minor, &patch) != 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", major, minor, patch)
}

// partitionPolicies lists the policies of the partition by number.
func (e extension) partitionPolicies() []hsm.Policy {
	var policies []hsm.Policy
	for number, value := range e.policies("CA_GetTokenPolicies") {
		policies = append(policies, hsm.Policy{Number: number, Name: policyName(number), Value: value})
	}
	slices.SortFunc(policies, func(a, b hsm.Policy) int { return cmp.Compare(a.Number, b.Number) })
	return policies
}

// fips reads the two policies that allow algorithms outside of FIPS 140: number
// 12 of the HSM and, from firmware 7.7.1 on, number 43 of the partition. The
// device is in FIPS mode when either forbids them.
func (e extension) fips(policies []hsm.Policy) *bool {
	var told []bool
	for _, p := range policies {
		if p.Number == policyNonFIPS {
			told = append(told, p.Value == 0)
		}
	}
	if value, ok := e.policies("CA_GetHSMPolicySet")[hsmPolicyNonFIPS]; ok {
		told = append(told, value == 0)
	}
	if len(told) == 0 {
		return nil
	}
	mode := slices.Contains(told, true)
	return &mode
}

// policies calls one of the functions that list policies, and returns their
// values by number.
func (e extension) policies(function string) map[int]int {
	// More than three times what any firmware has. A device with more answers
	// CKR_BUFFER_TOO_SMALL and is treated as one that does not tell.
	const most = 256
	f := e.symbol(function)
	if f == nil {
		return nil
	}
	var ids, values [most]C.ulong
	idCount, valueCount := C.ulong(most), C.ulong(most)
	if C.call_policies(f, e.slot, &ids[0], &idCount, &values[0], &valueCount) != 0 || idCount > most || valueCount != idCount {
		return nil
	}
	policies := make(map[int]int, idCount)
	for i := range idCount {
		policies[int(ids[i])] = int(values[i])
	}
	return policies
}
