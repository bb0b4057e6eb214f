package keyring

import "github.com/kmsbroker/kmsbroker/hsm"

// IsMaterial reports whether an HSM key is the material of a CMK, of any generation, or
// is about to become that.
func (k *Keyring) IsMaterial(id hsm.KeyID) bool {
	_, ok := k.snapshot.Load().materials()[id]
	return ok
}

// findMaterials collects the HSM keys that a snapshot is about.
func (s *snapshot) findMaterials() map[hsm.KeyID]struct{} {
	all := map[hsm.KeyID]struct{}{}
	for _, key := range s.keys {
		for _, cmk := range key.CMKs {
			all[cmk.HSMKeyID] = struct{}{}
		}
		for _, birth := range key.Births {
			all[birth.HSMKeyID] = struct{}{}
		}
	}
	for _, imp := range s.imports {
		all[imp.HSMKeyID] = struct{}{}
	}
	delete(all, "")
	return all
}
