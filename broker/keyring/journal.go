package keyring

import (
	"cmp"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// Imports returns copies of the unfinished imports, ordered by name.
func (k *Keyring) Imports() []*Import {
	s := k.snapshot.Load()
	imports := make([]*Import, 0, len(s.imports))
	for _, imp := range s.imports {
		imports = append(imports, imp.clone())
	}
	slices.SortFunc(imports, func(a, b *Import) int { return cmp.Compare(a.Name, b.Name) })
	return imports
}

// Import returns a copy of the unfinished import of that name.
func (k *Keyring) Import(name string) (*Import, bool) {
	imp, ok := k.snapshot.Load().imports[name]
	if !ok {
		return nil, false
	}
	return imp.clone(), true
}

// BeginImport stores the journal of a new import. WrongState: the name belongs
// to a key or to another unfinished import.
func (k *Keyring) BeginImport(imp *Import) error {
	return k.write(func(tx *bbolt.Tx, next *snapshot) error {
		if next.keys[imp.Name] != nil || next.imports[imp.Name] != nil {
			return failure.New(failure.WrongState, "KEY_EXISTS", "the name %q is taken", imp.Name).
				WithHint("choose another name, or see `kmsbrokerctl key list`")
		}
		next.imports[imp.Name] = imp.clone()
		return put(tx, importsBucket, imp.Name, imp)
	})
}

// BeginStep records that a step is about to be tried.
func (k *Keyring) BeginStep(name, step string, now time.Time) (*Import, error) {
	return k.UpdateImport(name, func(imp *Import) {
		if s := imp.Step(step); s != nil {
			s.Started, s.Done = now, time.Time{}
			return
		}
		imp.Steps = append(imp.Steps, ImportStep{Name: step, Started: now})
	})
}

// EndStep records that a step ended well, together with what it found out.
func (k *Keyring) EndStep(name, step string, now time.Time, found func(*Import)) (*Import, error) {
	return k.UpdateImport(name, func(imp *Import) {
		if s := imp.Step(step); s != nil {
			s.Done = now
		}
		found(imp)
	})
}

// WithdrawStep takes back the record of a step that was begun and of which it is
// certain that it did nothing.
func (k *Keyring) WithdrawStep(name, step string) (*Import, error) {
	return k.UpdateImport(name, func(imp *Import) {
		imp.Steps = slices.DeleteFunc(imp.Steps, func(s ImportStep) bool { return s.Name == step })
	})
}

// AbandonImport removes a journal. Whatever was made stays.
func (k *Keyring) AbandonImport(name string) error {
	return k.write(func(tx *bbolt.Tx, next *snapshot) error {
		delete(next.imports, name)
		return tx.Bucket(importsBucket).Delete([]byte(name))
	})
}

// UpdateImport changes an unfinished import and stores it.
func (k *Keyring) UpdateImport(name string, change func(*Import)) (*Import, error) {
	var imp *Import
	err := k.write(func(tx *bbolt.Tx, next *snapshot) error {
		old, ok := next.imports[name]
		if !ok {
			return failure.New(failure.NotFound, "IMPORT_NOT_FOUND", "there is no unfinished import of %q", name)
		}
		imp = old.clone()
		change(imp)
		next.imports[name] = imp
		return put(tx, importsBucket, name, imp)
	})
	if err != nil {
		return nil, err
	}
	return imp.clone(), nil
}

// FinishImport replaces the journal by the key, in one transaction.
func (k *Keyring) FinishImport(name string, key *Key) error {
	return k.write(func(tx *bbolt.Tx, next *snapshot) error {
		delete(next.imports, name)
		if err := tx.Bucket(importsBucket).Delete([]byte(name)); err != nil {
			return err
		}
		stored := key.clone()
		next.setKey(stored)
		return put(tx, keysBucket, name, stored)
	})
}
