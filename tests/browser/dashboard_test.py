#!/usr/bin/python3
"""The dashboard in headless Chromium on a real stack; nothing is mocked. Screenshots: build/screenshots/.

tests/browser/dashboard.png, shown in the README, is pro-light.png with fewer colours.
"""

import unittest

from selenium.webdriver.common.keys import Keys

from tests.support.chromium import Chromium
from tests.support.stack import ROOT, Stack, stopped

PRO, FREE, MANY, HOSTILE = (f"0000000{n}-0000-4000-8000-00000000000{n}" for n in (1, 2, 4, 6))
# What Chromium writes about a refused fetch, whatever the page does.
REFUSED = "/api/v1/keys - Failed to load resource: the server responded with a status of"


def setUpModule():
    global stack, page
    stack = unittest.enterModuleContext(Stack(workers=1))
    page = Chromium(stack.url)
    unittest.addModuleCleanup(page.quit)


class Page(unittest.TestCase):
    """Each test starts signed out, and ends with an innocent console and no stranger asked."""

    allowed = ()

    def setUp(self):
        page.open("/icon.svg")
        page.forget()
        # A fresh count; the handler itself remembers only users who are over.
        stack.psql("DELETE FROM public.request_counts")
        page.problems()

    def tearDown(self):
        self.assertEqual(page.problems(allow=self.allowed), [])

    def sign_in(self, name):
        page.open("/sign-in")
        page.click(f'form[action="/sign-in/{name}"] button')
        page.wait_for(lambda: page.run("return location.pathname") == "/", "the way back from the sign-in")
        page.wait_for(lambda: page.find("#table").get_attribute("aria-busy") == "false", "the answer")

    def assert_no_overflow(self):
        width, room = page.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        self.assertLessEqual(width, room)

    def assert_accessible(self):
        self.assertEqual(page.accessibility_violations(), [])


class SigningIn(Page):
    def test_the_sign_in_page_lists_the_demo_users(self):
        page.open("/sign-in")
        self.assertEqual(
            page.texts(".users strong"),
            ["Pro", "Free", "No keys yet", "1,000 keys", "Hostile names", "Signed out", "Expired token", "Banned"],
        )
        self.assert_accessible()
        page.screenshot("sign-in-light")
        page.look(375, 900, "dark")
        self.assert_no_overflow()
        self.assert_accessible()
        page.screenshot("sign-in-narrow")

    def test_a_click_sets_a_cookie_that_scripts_cannot_read(self):
        self.sign_in("pro")
        (cookie,) = page.cookies()
        self.assertEqual(cookie["name"], "sb-access-token")
        self.assertEqual((cookie["httpOnly"], cookie["secure"], cookie["sameSite"]), (True, True, "Lax"))
        self.assertEqual(page.run("return document.cookie"), "")

    def test_signing_out_takes_the_cookie_and_the_list_away_even_from_the_back_button(self):
        self.sign_in("pro")
        page.click('form[action="/sign-out"] button')
        page.wait_for("Choose whom to be", "the sign-in page")
        self.assertEqual(page.cookies(), [])
        page.driver.back()
        page.wait_for("You are signed out", "the refusal")
        self.assertEqual(page.texts("#rows tr"), [])
        self.allowed = (REFUSED,)

    def test_only_this_sites_own_pages_can_sign_anybody_in(self):
        own = stack.get("/sign-in/pro", method="POST", headers={"Origin": stack.url})
        self.assertEqual((own.status, own.headers["location"]), (303, "/"))
        self.assertIn("HttpOnly; Secure; SameSite=Lax", own.headers["set-cookie"])
        for origin in ("https://evil.example", "null", None):
            for path in ("/sign-in/pro", "/sign-out"):
                with self.subTest(origin=origin, path=path):
                    refused = stack.get(path, method="POST", headers={"Origin": origin} if origin else {})
                    self.assertEqual((refused.status, refused.json()["error"]["code"]), (404, "not_found"))
                    self.assertNotIn("set-cookie", refused.headers)
        for path, method in (("/sign-in/pro", "GET"), ("/sign-out", "GET"), ("/sign-in/root", "POST")):
            with self.subTest(path, method=method):
                refused = stack.get(path, method=method, headers={"Origin": stack.url})
                self.assertEqual((refused.status, refused.json()["error"]["code"]), (404, "not_found"))
                self.assertNotIn("set-cookie", refused.headers)

    def test_nothing_but_the_local_stack_mentions_the_sign_in(self):
        configuration = (path for path in (ROOT / "nginx").iterdir() if path.suffix == ".conf")
        files = [path for path in configuration if not path.name.startswith("local")]
        self.assertGreater(len(files), 5)
        for path in files:
            with self.subTest(path.name):
                self.assertNotRegex(path.read_text(encoding="utf-8"), r"sign-in|local-dash|nginx/html")

    def test_the_pages_headers_forbid_what_the_pages_do_not_need(self):
        for path in ("/", "/sign-in", "/keys.js", "/keys.css", "/theme.js", "/icon.svg"):
            with self.subTest(path):
                answer = stack.get(path)
                self.assertEqual(answer.status, 200)
                policy = answer.headers["content-security-policy"]
                self.assertIn("default-src 'none'", policy)
                self.assertIn("frame-ancestors 'none'", policy)
                self.assertIn("require-trusted-types-for 'script'", policy)
                self.assertNotIn("unsafe", policy)
                self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
        for path in ("/index.html", "/sign-in.html", "/sign-in.conf", "/local.conf.in"):
            with self.subTest(path):
                self.assertEqual(stack.get(path).status, 404)


class TheList(Page):
    def test_the_pro_user_sees_the_two_keys_of_the_published_example(self):
        self.sign_in("pro")
        self.assertEqual(page.texts("#rows .key .name"), ["Production SIEM", "Dev sandbox"])
        self.assertEqual(page.texts("#rows .prefix"), ["sk_live_zIc8", "sk_live_aB3x"])
        self.assertEqual(page.texts("#rows .tier .name"), ["pro", "free"])
        self.assertEqual(page.texts("#rows .tier .rate"), ["1,000/min · 1M/day", "10/min · 1,000/day"])
        self.assertEqual(page.texts("#rows .requests"), ["142,587", "234"])
        self.assertEqual(
            page.texts("#rows tr:first-child .scopes li"),
            ["read:iocs", "read:articles", "read:articles:export", "read:stix"],
        )
        self.assertEqual(page.text("#figure-total"), "2")
        self.assertEqual(page.text("#figure-requests"), "142,821")
        self.assertIn("of 1,000 requests left", page.text("#quota"))

    def test_times_are_relative_or_short_and_exact_on_hover(self):
        self.sign_in("pro")
        used, created = page.run(
            "return [...document.querySelectorAll('#rows tr:first-child time')]"
            ".map((time) => [time.textContent, time.dateTime, time.title])"
        )
        self.assertRegex(used[0], r"^\d+ (minute|hour|day|week|month|year)s? ago$")
        self.assertEqual(used[1], "2026-05-17T09:42:11Z")
        self.assertRegex(used[2], r"^Sunday, May 17, 2026 at 9:42:11\sAM UTC$")
        self.assertEqual(created[:2], ["Jan 15, 2026", "2026-01-15T10:00:00Z"])

    def test_the_page_asks_once_and_as_published(self):
        self.sign_in("pro")
        asked = page.run("return performance.getEntriesByType('resource').map((e) => new URL(e.name).pathname)")
        self.assertEqual(asked.count("/api/v1/keys"), 1)
        code = (ROOT / "nginx/html/keys.js").read_text(encoding="utf-8")
        self.assertIn("fetch('/api/v1/keys', { credentials: 'include' })", code)

    def test_it_looks_right_in_light_dark_and_on_a_phone(self):
        for name in ("pro", "hostile-names"):
            self.sign_in(name)
            for look, width, height, scheme in (
                ("light", 1280, 610, "light"),
                ("dark", 1280, 610, "dark"),
                ("middle", 1040, 720, "light"),
                ("tablet", 800, 900, "light"),
                ("narrow", 375, 900, "light"),
                ("narrow-dark", 375, 900, "dark"),
                ("smallest", 320, 700, "light"),
            ):
                with self.subTest(name, look=look):
                    page.look(width, height, scheme)
                    self.assert_no_overflow()
                    self.assert_accessible()
                    page.screenshot(f"{name}-{look}")
            page.look()

    def test_the_theme_button_overrides_the_system_and_is_remembered(self):
        self.sign_in("pro")
        background = "return getComputedStyle(document.body).backgroundColor"
        light = page.run(background)
        self.assertEqual(page.find("#theme").get_attribute("aria-pressed"), "false")
        page.click("#theme")
        dark = page.run(background)
        self.assertNotEqual(light, dark)
        self.assertEqual(page.find("#theme").get_attribute("aria-pressed"), "true")
        page.open("/sign-in")
        self.assertEqual(page.run(background), dark)
        page.click("#theme")
        self.assertEqual(page.run(background), light)

    def test_a_user_without_keys_is_told_so(self):
        self.sign_in("no-keys")
        self.assertIn("No keys yet", page.text())
        self.assertFalse(page.shows("#keys"))
        self.assert_accessible()
        page.screenshot("no-keys")


class HostileNames(Page):
    def test_names_are_text_whatever_they_contain(self):
        self.sign_in("hostile-names")
        sql = "SELECT json_agg(name ORDER BY created_at, id) FROM public.api_keys WHERE user_id = '%s'"
        names = page.run("return JSON.parse(arguments[0])", stack.psql(sql % HOSTILE))
        self.assertTrue(any("<script>" in name for name in names))
        self.assertEqual(page.texts("#rows .key .name"), names)
        self.assertEqual(page.run("return document.querySelectorAll('#rows script, #rows img, #rows b').length"), 0)
        self.assertIn("<b>bold</b>", page.texts("#rows .scopes li"))

    def test_a_right_to_left_name_turns_nothing_else_around(self):
        self.sign_in("hostile-names")
        name = "document.querySelectorAll('#rows .key .name')[1]"
        self.assertEqual(page.run(f"return getComputedStyle({name}).direction"), "rtl")
        self.assertEqual(page.run(f"return getComputedStyle({name}).unicodeBidi"), "isolate")
        self.assertEqual(page.run(f"return getComputedStyle({name}.nextElementSibling).direction"), "ltr")

    def test_revoked_expired_and_expiring_keys_are_marked_in_words(self):
        self.sign_in("hostile-names")
        self.assertEqual(
            page.texts("#rows .mark"), ["Active", "Expires soon", "Revoked", "Expired", "Active", "Active"]
        )
        self.assertEqual(page.texts('#rows [data-state="expiring"] td:last-child'), ["in 5 days"])
        self.assertEqual(page.texts('#rows [data-state="expired"] td:last-child'), ["1 day ago"])
        self.assertEqual(page.texts('#rows [data-state="revoked"] .state time'), ["2 days ago"])
        self.assertEqual((page.text("#figure-active"), page.text("#figure-expiring")), ("4", "1"))


class AThousandKeys(Page):
    def test_drawing_them_takes_less_than_half_a_second_of_processor_time(self):
        self.sign_in("many-keys")
        self.assertEqual(len(page.texts("#rows tr")), 1000)
        self.assertEqual(page.text("#figure-total"), "1,000")
        page.screenshot("many-keys")
        page.cdp("Performance.enable")
        before = self.main_thread_seconds()
        page.driver.execute_async_script(
            """
            const done = arguments[arguments.length - 1];
            const whenDrawn = () => requestAnimationFrame(() => setTimeout(done));
            new MutationObserver((_, observer) => { observer.disconnect(); whenDrawn(); })
              .observe(document.getElementById('rows'), {childList: true});
            document.getElementById('refresh').click();
            """
        )
        took = self.main_thread_seconds() - before
        page.cdp("Performance.disable")
        print(f"1,000 keys take the page's main thread {1000 * took:.0f} ms")
        self.assertLess(took, 0.5)

    def main_thread_seconds(self):
        (seconds,) = (m["value"] for m in page.cdp("Performance.getMetrics")["metrics"] if m["name"] == "ThreadTime")
        return seconds

    def test_searching_by_name_prefix_or_a_pasted_key_shows_only_what_matches(self):
        self.sign_in("many-keys")
        for typed, names, count in (
            ("sensor 77", {"Sensor 77", *(f"Sensor {n}" for n in range(770, 780))}, "11 of 1,000 keys"),
            ("SENSOR 999", {"Sensor 999"}, "1 of 1,000 keys"),
            ("sk_live_K123", {"Sensor 123"}, "1 of 1,000 keys"),
            ("sk_live_K124restOfTheSecret", {"Sensor 124"}, "1 of 1,000 keys"),
        ):
            with self.subTest(typed):
                page.fill("#search", typed)
                self.assertEqual(set(page.texts("#rows .key .name")), names)
                self.assertEqual(page.text("#count"), count)
                self.assertIn(count, page.find("#announcement").get_attribute("textContent"))
        page.fill("#search", "nonsense")
        self.assertIn("No key has this name or prefix", page.text())
        self.assert_accessible()
        page.press(Keys.ESCAPE)
        self.assertEqual(len(page.texts("#rows tr")), 1000)

    def test_headings_sort_both_ways_and_say_so(self):
        self.sign_in("many-keys")

        def first_and_sorted():
            heading = "return [...document.querySelectorAll('th[aria-sort]')].map((e) => [e.textContent, e.ariaSort])"
            return page.texts("#rows tr:first-child .key .name"), page.run(heading)

        self.assertEqual(first_and_sorted(), (["Sensor 0"], [["Created", "ascending"]]))
        for column, first, direction in (
            ("created_at", "Sensor 999", "descending"),
            ("name", "Sensor 0", "ascending"),
            ("name", "Sensor 999", "descending"),
            ("total_requests", "Sensor 0", "ascending"),
            ("total_requests", "Sensor 999", "descending"),
            ("last_used_at", "Sensor 999", "ascending"),
            ("tier", "Sensor 0", "ascending"),
        ):
            with self.subTest(column, direction=direction):
                page.run("scrollTo(0, 0)")
                page.click(f'th[data-column="{column}"] button')
                names, headings = first_and_sorted()
                self.assertEqual(names, [first])
                self.assertEqual([direction for _, direction in headings], [direction])
                self.assertIn(direction, page.find("#announcement").get_attribute("textContent"))

    def test_a_phone_sorts_by_a_menu(self):
        self.sign_in("many-keys")
        page.look(375, 900)
        self.assert_no_overflow()
        page.run(
            "const menu = document.getElementById('order'); menu.value = 'name descending';"
            "menu.dispatchEvent(new Event('change'))"
        )
        self.assertEqual(page.texts("#rows tr:first-child .key .name"), ["Sensor 999"])


class Keyboard(Page):
    def test_everything_can_be_reached_and_used_without_a_mouse(self):
        self.sign_in("many-keys")
        reached = []
        for _ in range(12):
            page.press(Keys.TAB)
            focused = page.driver.switch_to.active_element
            reached.append(focused.get_attribute("id") or focused.text)
            outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
            self.assertEqual(outline, "solid", reached[-1])
        self.assertEqual(
            reached,
            [
                "Skip to the keys",
                "SOC Defenders",
                "theme",
                "Switch user",
                "Sign out",
                "refresh",
                "search",
                "Key",
                "State",
                "Tier",
                "Requests",
                "Last used",
            ],
        )
        page.press(Keys.ENTER)
        self.assertEqual(page.find('th[data-column="last_used_at"]').get_attribute("aria-sort"), "ascending")
        self.assertEqual(page.driver.switch_to.active_element.text, "Last used")

    def test_the_skip_link_skips_the_header(self):
        self.sign_in("pro")
        page.press(Keys.TAB, Keys.ENTER, Keys.TAB)
        self.assertEqual(page.driver.switch_to.active_element.get_attribute("id"), "refresh")


class Refusals(Page):
    allowed = (REFUSED,)

    def test_without_a_session_the_page_leads_to_the_sign_in(self):
        page.open("/")
        page.wait_for("You are signed out", "the refusal")
        self.assertFalse(page.shows("#keys"))
        self.assertRegex(page.text("#blank-id"), r"Request\s+req_[0-9a-f]{32}")
        self.assert_accessible()
        page.screenshot("signed-out")
        page.click("#sign-in")
        page.wait_for("Choose whom to be", "the sign-in page")

    def test_a_session_that_is_over_says_why(self):
        for name, title in (
            ("signed-out", "Your session is no longer valid"),
            ("expired-token", "Your session has expired"),
            ("banned", "Your session is no longer valid"),
        ):
            with self.subTest(name):
                self.sign_in(name)
                self.assertIn(title, page.text())
                self.assertTrue(page.shows("#sign-in"))
                self.assertFalse(page.shows("#keys"))


class OverTheLimit(Page):
    allowed = (REFUSED,)

    def seconds_shown(self):
        minutes, seconds = page.text("#countdown-time").split(":")
        return 60 * int(minutes) + int(seconds)

    def test_the_free_users_eleventh_request_counts_down_and_then_loads_by_itself(self):
        self.sign_in("free")
        # The window is nearly over, so that the test need not wait for a whole minute.
        stack.psql(
            f"UPDATE public.request_counts SET minute_ends = now() + interval '20 seconds' WHERE user_id = '{FREE}'"
        )
        for left in range(8, -1, -1):
            page.click("#refresh")
            page.wait_for(f"{left} of 10 requests left", "the count")
        page.click("#refresh")
        page.wait_for("Too many requests", "the limit")
        self.assertIn("10 times a minute", page.text("#notice"))
        self.assertEqual(page.texts("#rows .key .name"), ["My first key"], "the list stays below the notice")
        self.assert_accessible()
        page.screenshot("over-limit-with-list")

        page.open("/")
        page.wait_for("Too many requests", "the limit")
        self.assertFalse(page.shows("#keys"))
        began = self.seconds_shown()
        self.assertTrue(0 < began <= 20, began)
        page.screenshot("over-limit")
        page.wait_for(lambda: self.seconds_shown() < began, "the countdown to go on")
        page.wait_for("My first key", "the list after the countdown", timeout=25)
        self.assertFalse(page.shows("#notice"))


class Outages(Page):
    allowed = (REFUSED, "ERR_INTERNET_DISCONNECTED")

    def test_a_slow_answer_shows_that_it_is_awaited(self):
        self.sign_in("pro")
        with stopped(*stack.worker_pids()):
            page.open("/")
            page.wait_for(lambda: page.shows("#rows .waiting"), "the placeholder")
            self.assertEqual(page.find("#table").get_attribute("aria-busy"), "true")
            self.assertEqual(page.find("#announcement").get_attribute("textContent"), "Loading your keys.")
            self.assert_accessible()
            page.screenshot("loading")
        page.wait_for("Production SIEM", "the list")
        self.assertFalse(page.shows("#rows .waiting"))

    def test_without_a_database_the_page_says_so_offers_to_retry_and_recovers_alone(self):
        self.sign_in("pro")
        stack.pg_ctl("stop", "-m", "fast")
        try:
            page.click("#refresh")
            page.wait_for("The service is not available", "the outage")
            self.assertEqual(len(page.texts("#rows tr")), 2, "the list stays below the notice")
            page.open("/")
            page.wait_for("The service is not available", "the outage")
            self.assertFalse(page.shows("#keys"))
            self.assertRegex(page.text("#notice-id"), r"Request\s+req_[0-9a-f]{32}")
            self.assert_accessible()
            page.screenshot("unavailable")
            page.look(375, 700, "dark")
            self.assert_no_overflow()
            self.assert_accessible()
            page.screenshot("unavailable-narrow")
            before = page.text("#notice-id")
            page.click("#retry")
            page.wait_for(lambda: page.text("#notice-id") not in ("", before), "another try")
        finally:
            stack.pg_ctl("start")
        page.wait_for("Production SIEM", "the list, by itself", timeout=60)
        self.assertFalse(page.shows("#notice"))

    def test_the_focus_survives_the_retry_button(self):
        self.sign_in("pro")
        stack.pg_ctl("stop", "-m", "fast")
        try:
            page.open("/")
            page.wait_for("The service is not available", "the outage")
            page.run("document.getElementById('retry').focus()")
        finally:
            stack.pg_ctl("start")
        stack.wait_until(
            lambda: stack.get(token=stack.mint()).status == 200, what="the handler's reconnect", timeout=30
        )
        page.press(Keys.ENTER)
        page.wait_for("Production SIEM", "the list")
        self.assertEqual(page.driver.switch_to.active_element.get_attribute("id"), "main")

    def test_a_page_without_network_recovers_when_it_is_back(self):
        self.sign_in("pro")
        offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.cdp("Network.emulateNetworkConditions", offline=True, **offline)
        try:
            page.click("#refresh")
            page.wait_for("The service cannot be reached", "the fault")
        finally:
            page.cdp("Network.emulateNetworkConditions", offline=False, **offline)
        page.wait_for(lambda: not page.shows("#notice"), "the list again")
        self.assertEqual(len(page.texts("#rows tr")), 2)


if __name__ == "__main__":
    unittest.main()
