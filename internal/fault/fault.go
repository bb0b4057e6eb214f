// Package fault lets tests end the daemon at the places where it hurts most. In
// a normal build a point is nothing; built with the tag "faults" it can be told
// by the environment to kill the process there.
//
// Points lie around every entry of the import journal and around every call to
// KMS and to an HSM, placed by the loops and wrappers that all of them go
// through, so that a new step or call has its points from the beginning.
package fault
