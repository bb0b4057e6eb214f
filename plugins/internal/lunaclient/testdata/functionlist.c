/* What the binding needs to load the library: a function list. */
static struct {
	unsigned long version;
	void *functions[68];
} list;

unsigned long C_GetFunctionList(void **out)
{
	*out = &list;
	return 0;
}
