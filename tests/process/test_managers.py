"""Proxies of `multiprocessing`'s managers work in workers, where that module is in use."""

from store_watch import run_script


def test_tasks_and_setups_take_proxies_of_managers():
    script = run_script("""
        import multiprocessing
        import headrace as hr

        def note(numbers, number):
            numbers.append(number)

        with multiprocessing.Manager() as manager:
            numbers = manager.list()
            with hr.Client(workers=2, setup=lambda: numbers.append("ready")) as client:
                graph = hr.Graph()
                client.submit(graph, keep=graph.map(note, [numbers] * 10, range(10))).results()
            print(sorted(set(map(str, numbers))))
    """)
    expected = sorted([*map(str, range(10)), "ready"])
    assert (script.stdout, script.stderr) == (f"{expected}\n", "")


def test_workers_import_multiprocessing_only_where_it_is_in_use():
    script = run_script("""
        import headrace as hr
        with hr.Client(workers=1) as client:
            print(client.call(lambda: "multiprocessing" in __import__("sys").modules).result())
    """)
    assert (script.stdout, script.stderr) == ("False\n", "")
