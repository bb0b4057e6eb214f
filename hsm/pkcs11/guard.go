package pkcs11

import (
	"sync"

	p11 "github.com/miekg/pkcs11"
)

// guard keeps those who look at objects, by searching or reading, apart from
// those who remove some. PKCS#11 admits both at once, and so does the guard for
// a library that keeps to it: every wrap does both, and on a device where each
// call takes a millisecond, eight callers that keep apart get a quarter of what
// eight callers can.
type guard struct {
	looking  sync.Locker // held by any number at once
	removing sync.Locker // held by one, while nobody looks
}

// guardFor returns the guard for a library, by what C_GetInfo says of it.
// opencryptoki before 3.14 crashes, because a search looks at the session objects
// of others too.
func guardFor(library p11.Info) guard {
	version := library.LibraryVersion
	if library.ManufacturerID == "IBM" && (version.Major < 3 || version.Major == 3 && version.Minor < 14) {
		return apart(new(sync.RWMutex))
	}
	return guard{looking: unguarded{}, removing: unguarded{}}
}

func apart(lock *sync.RWMutex) guard {
	return guard{looking: lock.RLocker(), removing: lock}
}

// unguarded is the lock of what needs none.
type unguarded struct{}

func (unguarded) Lock()   {}
func (unguarded) Unlock() {}
