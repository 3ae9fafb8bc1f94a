"""The five-minute start: see README.md."""

import asyncio

from mognet import App, Context

app = App("kitchen")


@app.task
async def cook(context: Context, dish: str, minutes: int = 5) -> str:
    """Cook a dish; a minute takes a second here."""
    await asyncio.sleep(minutes)
    return f"{dish} is served"
