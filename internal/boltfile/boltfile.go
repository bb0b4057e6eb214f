// Package boltfile opens bbolt files that may be damaged. bbolt trusts its file:
// on a bad page it panics, and on a file that was cut short it touches memory
// that is not there. A program that keeps keys says so instead of dying.
package boltfile

import (
	"fmt"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

// lockTimeout is how long to wait for another process to give the file free.
const lockTimeout = 2 * time.Second

// Open opens or creates the file with mode 0600. Errors: bbolt's ErrTimeout when
// another process uses it, os errors, and a description of the damage.
func Open(path string) (*bbolt.DB, error) {
	var db *bbolt.DB
	err := Survive(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
		return err
	})
	return db, err
}

// Survive runs f, which reads a file that is not yet known to be sound, and
// turns what bbolt does on a damaged one into an error.
func Survive(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("unreadable page: %v", p)
		}
	}()
	return f()
}
